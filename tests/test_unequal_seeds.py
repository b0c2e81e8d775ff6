"""Seeds of one model that have other steps, or lack columns: every view goes on with what each has."""

import contextlib
import json
import random
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from synthetic_store import SMALL, SMALL_STEPS, measurement_of, unit_of

from tracker.analysis import analyse
from tracker.analysis.comparison_report import ComparedAt, Tables, compare_models
from tracker.analysis.context import HEAD_COLUMNS
from tracker.errors import RequestError
from tracker.store import Store, open_store
from tracker.views.data import dashboard_data

LACKING = ("spectral_entropy", "frequency_selectivity", "band_power_low", "loss", "scale_sensitivity_0.5")


def without(frame: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    return frame.drop([column for column in frame.columns if column.startswith(tuple(names))])


@pytest.mark.parametrize("case", range(6))
def test_seeds_with_other_checkpoints_and_columns_end_in_a_report(tmp_path: Path, case: int):
    rng, store = random.Random(case), Store(tmp_path)
    for size, shape in enumerate(SMALL[:2]):
        for seed in range(3):
            absent = rng.sample(LACKING, rng.choice((0, 0, 1, 3)))
            for step in rng.sample(SMALL_STEPS, rng.choice((1, 2, 3, 8, 16))):
                unit = unit_of("nano", shape, seed, step)
                found = measurement_of(unit, shape, size)
                kept = {
                    name: without(getattr(found, name), absent)
                    for name in ("heads", "sequences", "checkpoint")
                }
                store.write(unit, replace(found, **kept))
    results = open_store(tmp_path)
    tables = results.checkpoints(), results.sequences()
    report = analyse(*tables, results.heads(HEAD_COLUMNS))
    assert {(each.model, each.seed) for each in report.phases} == {
        (shape.model, seed) for shape in SMALL[:2] for seed in range(3)
    }
    assert all(any(shape.model in sentence for sentence in report.summary) for shape in SMALL[:2])
    json.dumps(report.to_dict(), allow_nan=False)
    json.dumps(dashboard_data(results, report.to_dict()), allow_nan=False)
    with contextlib.suppress(RequestError):  # where one model has no checkpoint of the choice
        compare_models(Tables("store", *tables), ComparedAt("end"))
