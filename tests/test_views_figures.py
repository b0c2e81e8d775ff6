import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure
from PIL import Image
from synthetic_store import (
    SMALL,
    SMALL_STEPS,
    measurement_of,
    synthetic_analysis,
    unit_of,
    write_audit,
    write_store,
)
from views_browser import shared_store

from tracker.analysis.schema import AnalysisReport
from tracker.analysis.transition_types import Move, Passing
from tracker.errors import StoreError
from tracker.records import Measurement
from tracker.store import Results, Store, open_store
from tracker.views import measurement_figure, phase_figure, scale_figure, write_figures
from tracker.views.figure_files import drawn_views, save_figure
from tracker.views.figure_maps import HEAD_METRIC, draw_maps, draw_spectrograms
from tracker.views.figure_order import draw_checkpoints, draw_lead_lag
from tracker.views.figure_style import ZERO, end_labels, place, style
from tracker.views.figure_tints import under_way
from tracker.views.prepared import Checkpoints, LeadLag, Scale, Spectrogram, Trajectories, map_table
from tracker.views.runs import Run, runs_of


def scale_table(runs: list[Run]) -> pl.DataFrame:
    return Scale.of(Trajectories.of(runs, AnalysisReport()), AnalysisReport(), "params_non_embedding").table


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return open_store(shared_store(tmp_path_factory))


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_phase_figure_draws_the_stored_means_at_their_log_steps(results: Results):
    figure = phase_figure(results, synthetic_analysis())
    assert titles(figure)[:4] == [
        "Spectral entropy (nats)", "Frequency selectivity", "Low-band power (share)", "Loss (nats per token)",
    ]  # fmt: skip
    run = runs_of(results)[-1]
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == len(run.steps)]  # type: ignore[arg-type]
    drawn = [np.asarray(line.get_ydata()) for line in lines]
    assert any(np.array_equal(y, run.series["spectral_entropy"].mean) for y in drawn)
    assert {"0.05m", "0.2m", "0.8m", "exploratory", "specialisation"} <= set(texts(figure))
    assert titles(figure)[4].startswith("Transitions by model")


def test_a_tint_is_strongest_where_a_move_is_surely_under_way_and_fades_over_its_intervals():
    def passing(low: int, high: int, interval: tuple[int, int]) -> Passing:
        return Passing(low, high, interval)

    dates = passing(16, 32, (8, 32)), passing(64, 128, (64, 128)), passing(256, 512, (256, 1024))
    move = Move("up", 0.0, 1.0, (0.9, 1.1), *dates, 4.0, (3.0, 5.0), "gradual")
    found = under_way(move)
    assert (found[0][0], found[-1][1]) == (3.0, 10.0)
    strength = {round((x0 + x1) / 2, 1): each for x0, x1, each in found}
    sure = [each for x, each in strength.items() if 5 < x < 8]
    assert sure == [1.0] * len(sure)
    rising = [each for x, each in strength.items() if x < 5]
    assert rising == sorted(rising)
    assert rising[0] < 0.2
    assert list(strength.values())[-1] < 0.2
    assert under_way(replace(move, open_end=True))[-1][2] == 1.0


def test_step_zero_has_its_own_place_left_of_one():
    np.testing.assert_allclose(place([0, 1, 2, 1024]), [ZERO, 0, 1, 10])


def test_without_an_analysis_there_are_curves_but_no_phases(results: Results):
    figure = phase_figure(results, None)
    assert len(figure.axes) == 4
    assert "exploratory" not in texts(figure)


def test_the_scale_figure_tints_a_claimed_threshold_only(results: Results):
    analysis = synthetic_analysis()
    plainly = len(scale_figure(results, analysis).axes[0].patches)
    analysis["thresholds"][0] |= {"low": 56_000, "high": 200_000}
    figure = scale_figure(results, analysis)
    assert len(figure.axes[0].patches) == plainly + 1
    assert figure.axes[0].get_xscale() == "log"
    assert texts(figure).count("0.8m") == 4


def test_a_threshold_of_another_step_is_not_drawn(results: Results):
    analysis = synthetic_analysis()
    analysis["thresholds"][0] |= {"low": 56_000, "high": 200_000, "step": 64}
    assert len(scale_figure(results, analysis).axes[0].patches) == 0


def test_scale_values_are_those_of_the_last_common_step(tmp_path: Path):
    write_store(tmp_path, SMALL[:1], SMALL_STEPS, holes=False)
    write_store(tmp_path, SMALL[1:2], SMALL_STEPS[:-2], holes=False)
    runs = runs_of(open_store(tmp_path))
    table = scale_table(runs)
    assert table["step"].unique().to_list() == [SMALL_STEPS[-3]]
    stored = open_store(tmp_path).checkpoints().filter(pl.col("step") == SMALL_STEPS[-3]).sort("params_total")
    drawn = table.filter(pl.col("metric") == "loss").sort("params_non_embedding")
    assert drawn["mean"].to_list() == pytest.approx(stored["loss"].to_list())


def test_runs_that_share_no_step_stand_at_their_own_last_one(tmp_path: Path):
    write_store(tmp_path, SMALL[:1], (1, 2), holes=False)
    write_store(tmp_path, SMALL[1:2], (4, 8), holes=False)
    results = open_store(tmp_path)
    assert set(scale_table(runs_of(results))["step"]) == {2, 8}
    figure = scale_figure(results, None)
    assert figure.get_supxlabel().startswith("At the last step of each model.")


def test_one_checkpoint_has_maps_of_its_heads_and_spectra_of_its_layers():
    measurement = measurement_of(unit_of("nano", SMALL[2], 0, 256), SMALL[2], 1.0)
    figure = measurement_figure(measurement)
    image = figure.axes[0].images[0].get_array()
    expected = measurement.heads.sort("layer", "head")["spectral_entropy"].to_numpy().reshape(4, 8)
    np.testing.assert_allclose(np.asarray(image), expected)
    spectra = next(axes for axes in figure.axes if axes.get_title(loc="left") == "Mean spectrum per layer")
    assert len(spectra.lines) == 4
    assert np.asarray(spectra.lines[0].get_ydata()).sum() == pytest.approx(100)


def test_what_holds_nothing_gives_a_figure_that_says_so(tmp_path: Path):
    Store(tmp_path).write_hole(unit_of("nano", SMALL[0], 0, 1), "failed", "no weights")
    results = open_store(tmp_path)
    assert phase_figure(results, None).texts[0].get_text() == "This store holds no measured checkpoint."
    assert "No measured checkpoint" in scale_figure(results, None).texts[0].get_text()
    empty = pl.DataFrame()
    assert "no head" in measurement_figure(Measurement(empty, empty, empty, empty)).texts[0].get_text()


@pytest.fixture(scope="module")
def written(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures") / "new"
    names = {path.name for path in write_figures(results, synthetic_analysis(), folder)}
    assert names == {path.name for path in folder.iterdir()}
    return folder


def test_every_view_is_written_in_every_format_with_its_data(results: Results, written: Path):
    axes = ("params_total", "d_model", "n_layers", "n_heads", "all_heads", "d_head", "rotary_dims")
    views = ("phases", "scale", "heads", "spectrograms", "lead-lag", "checkpoints")
    views += tuple(f"scale-{axis}" for axis in axes)
    assert {path.name for path in written.iterdir()} == {
        f"{name}.{kind}" for name in views for kind in ("svg", "png", "pdf", "csv")
    }
    starts = {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}
    for path in written.iterdir():
        assert path.stat().st_size > 500
        assert path.suffix == ".csv" or path.read_bytes().startswith(starts[path.suffix])
    for name in views:
        with Image.open(written / f"{name}.png") as image:
            assert image.width > 700
            assert len(image.convert("RGB").getcolors(1 << 24) or []) > 50
    with open(written / "phases.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    table = Trajectories.of(runs_of(results), AnalysisReport()).table()
    assert len(rows) == table.height == 46 * 4
    assert float(rows[0]["mean"]) == pytest.approx(table["mean"][0])


def test_the_data_of_the_views_are_the_stores(results: Results, written: Path):
    heads = results.heads()
    spectra = pl.read_csv(written / "spectrograms.csv")
    one = heads.filter(model="0.2m", step=64)
    expected = np.mean(one["spectrum"].to_list(), axis=0)
    drawn = spectra.filter(pl.col("model") == "0.2m", pl.col("step") == 64).sort("band_low")["share"]
    np.testing.assert_allclose(drawn, expected)
    maps = pl.read_csv(written / "heads.csv")
    assert maps["step"].unique().sort().to_list() == [0, 64, 256, 16000]
    stored = heads.filter(pl.col("model") == "0.8m", pl.col("step") == 256).sort("layer", "head")
    drawn = maps.filter(pl.col("step") == 256).sort("layer", "head")["spectral_entropy"]
    np.testing.assert_allclose(drawn, stored["spectral_entropy"])
    widths = pl.read_csv(written / "scale-d_model.csv")
    assert widths.group_by("model", "d_model").len().sort("d_model")["d_model"].to_list() == [48, 64, 128]
    order = pl.read_csv(written / "lead-lag.csv")
    assert order.filter(pl.col("covariate") == "loss")["verdict"].unique().to_list() == ["before"]
    assert order.height == 3 * 2 * 3
    there = pl.read_csv(written / "checkpoints.csv")
    assert there.group_by("state").len().sort("state").rows() == [
        ("failed", 1),
        ("measured", 46),
        ("missing", 1),
    ]


def test_the_same_store_gives_the_same_bytes(results: Results, written: Path, tmp_path: Path):
    seen = 0
    for name, figure, _ in drawn_views(results, synthetic_analysis()):
        if name in ("phases", "heads", "spectrograms", "lead-lag"):
            for path in save_figure(figure, tmp_path / name):
                assert path.read_bytes() == (written / path.name).read_bytes(), path.name
                seen += 1
    assert seen == 12


def test_suspect_checkpoints_are_hollow_in_every_figure(tmp_path: Path):
    write_audit(write_store(tmp_path, SMALL[1:2], holes=False), SMALL[1], 256)
    results = open_store(tmp_path)
    (run,) = runs_of(results)
    maps = draw_maps(run, map_table(results, run, [0, 256], HEAD_METRIC))
    assert [len(axes.collections) for axes in maps.axes[:2]] == [0, 1]
    assert maps.axes[1].get_title(loc="left") == "step 256 (suspect)"
    spectra = draw_spectrograms([Spectrogram.of(results, run)])
    (hollow,) = [line for line in spectra.axes[0].lines if line.get_markerfacecolor() == "none"]
    assert list(np.asarray(hollow.get_xdata())) == [8.0]
    column = np.ma.getmaskarray(spectra.axes[0].collections[0].get_array()).reshape(16, -1)
    assert column.all(axis=0).tolist() == [int(step) == 256 for step in run.steps]
    checkpoints = Checkpoints.of([run], [])
    assert checkpoints.table.filter(state="suspect")["step"].to_list() == [256]
    figure = draw_checkpoints(checkpoints)
    assert [line.get_label() for line in figure.axes[0].lines] == ["measured: 15", "suspect: 1"]
    assert figure.axes[0].lines[1].get_markerfacecolor() == "none"


def test_without_changes_or_spectra_the_figures_say_so():
    nothing = LeadLag.of(Trajectories.of([], AnalysisReport()), AnalysisReport())
    assert nothing.shown is None
    assert "No change was found" in draw_lead_lag(nothing).texts[0].get_text()
    assert "has a spectrum" in draw_spectrograms([]).texts[0].get_text()
    assert "no checkpoint" in draw_checkpoints(Checkpoints.of([], [])).texts[0].get_text()


def test_a_folder_that_cannot_be_written_is_named(results: Results, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StoreError, match=r"cannot write the figures to .*file/figures: .*; free or change it"
    ):
        write_figures(results, None, tmp_path / "file" / "figures")


def test_names_with_signs_of_mathematics_are_drawn_as_they_are(tmp_path: Path):
    shape = replace(SMALL[0], model=r"a$\frac$b_{2}<script>")
    write_store(tmp_path, (shape,), SMALL_STEPS, holes=False)
    analysis = synthetic_analysis((shape,))
    figure = phase_figure(open_store(tmp_path), analysis)
    with style():
        figure.savefig(tmp_path / "phases.svg")
    assert "mathtext" not in (tmp_path / "phases.svg").read_text()


def test_labels_at_the_line_ends_keep_apart_and_inside():
    with style():
        axes = Figure().add_subplot()
        axes.set_ylim(0, 1)
        end_labels(axes, [(str(i), "black", 0.01) for i in range(8)])
    heights = [text.get_position()[1] for text in axes.texts]
    assert min(np.diff(heights)) > 0.06
    assert min(heights) >= 0


def test_figures_leave_pyplot_alone():
    code = (
        "import sys, tracker.views; sys.exit(sorted({'matplotlib.pyplot', 'torch'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
