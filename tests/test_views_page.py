"""What the page promises: aligned, linked, scrollable, exportable, accessible, complete."""

import csv
import io
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser
from synthetic_store import PYTHIA, SMALL, SMALL_STEPS, synthetic_analysis, write_audit, write_store
from views_browser import PATIENCE, Visit, browsing, visiting

from tracker import facts
from tracker.store import Results, open_store
from tracker.views import write_dashboard
from tracker.views.paper import beside_paper, paper_points
from tracker.views.runs import runs_of

AXE = "TRACKER_AXE"
"""Names the environment variable with the path of axe-core's axe.min.js."""


def axis(visit: Visit, name: str) -> dict[str, Any]:
    """Where a plot's horizontal axis lies on the page, and what it shows."""
    look = """name => { const node = document.getElementById(name), axis = node._fullLayout.xaxis;
        const left = node.getBoundingClientRect().left + axis._offset;
        return {range: axis.range, left, width: axis._length}; }"""
    return visit.page.evaluate(look, name)


def true_soon(visit: Visit, claim: str) -> None:
    """Waits until an expression is true; Playwright's own way is against the page's policy."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not visit.page.evaluate(claim):
        assert time.monotonic() < deadline, claim
        visit.page.wait_for_timeout(50)


def saved(visit: Visit, plot: str) -> list[dict[str, str]]:
    """The rows of a plot's CSV file."""
    with visit.page.expect_download() as download:
        visit.page.locator(f"#{plot} > .csv").click()
    assert download.value.suggested_filename == f"tracker-{plot}.csv"
    return list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))


@browsing
@pytest.mark.parametrize("width", [1400, 1000, 390])
def test_nothing_is_cut_at_the_right_edge(browser: Browser, path: Path, width: int):
    with visiting(browser, viewport={"width": width, "height": 900}) as visit:
        visit.open(path)
        outside = """width => [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') &&
            e.getBoundingClientRect().right > width && !e.closest('svg')).map(e => e.id || e.className)"""
        assert visit.page.evaluate(outside, width) == []
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        for box in visit.page.locator(".scroll:visible").all():
            scrolls, reached, bar = box.evaluate(
                "e => [e.scrollWidth > e.clientWidth || e.scrollHeight > e.clientHeight, e.tabIndex === 0,"
                " getComputedStyle(e).overflowX]"
            )
            assert (scrolls, bar) == (reached, "auto")
        origin = visit.page.locator("#origin").locator("..")
        if width > 900:
            assert origin.evaluate("e => e.scrollWidth <= e.clientWidth")
        legends = visit.page.locator(".legend:visible, g.legend").all()
        right = [box["x"] + box["width"] for each in legends if (box := each.bounding_box())]
        assert right
        assert max(right) <= width
        assert visit.complaints == []


@browsing
def test_no_tick_of_a_colour_bar_lies_under_the_buttons(visit: Visit):
    for name in ("map-plot", "layers-plot", "spectrum-plot"):
        visit.page.locator(f"#{name}").hover()
        buttons = visit.page.locator(f"#{name} .modebar").bounding_box()
        ticks = [each.bounding_box() for each in visit.page.locator(f"#{name} .cbaxis text").all()]
        assert buttons is not None
        assert ticks
        assert min(tick["y"] for tick in ticks if tick) >= buttons["y"] + buttons["height"], name


@browsing
def test_panels_and_ribbon_have_one_axis_and_one_strength_of_tint(browser: Browser, tmp_path: Path):
    stored = open_store(write_store(tmp_path))
    with visiting(browser) as visit:
        visit.open(write_dashboard(stored, synthetic_analysis(), tmp_path / "page.html"))
        above, below = axis(visit, "multiples"), axis(visit, "ribbon")
        assert above == below
        fills = """name => [...new Set(document.getElementById(name).layout.shapes
            .filter(s => s.type === 'rect').map(s => s.fillcolor))].sort()"""
        assert visit.page.evaluate(fills, "multiples") == visit.page.evaluate(fills, "ribbon") != []


@browsing
def test_zooming_one_plot_zooms_all_and_a_double_click_ends_it(visit: Visit):
    full = axis(visit, "panel-1")["range"]
    area = visit.page.locator("#panel-0 .nsewdrag").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    visit.page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 50)
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 52, steps=6)
    visit.page.mouse.up()
    true_soon(visit, "document.getElementById('panel-1')._fullLayout.xaxis.range[0] > 2")
    linked = ("panel-0", "panel-1", "multiples", "ribbon", "head-plot")
    ranges = [axis(visit, name)["range"] for name in linked]
    assert all(each == pytest.approx(ranges[0]) for each in ranges)
    ticks = [text for text in visit.page.locator("#ribbon .xtick").all_text_contents() if text]
    low, high = ranges[0]
    steps = {str(step) if step < 1000 else f"{step / 1000:g}k" for step in SMALL_STEPS[1:]}
    assert ticks
    assert set(ticks) <= steps
    assert len(ticks) <= high - low + 1
    visit.page.mouse.dblclick(box["x"] + 0.5 * box["width"], box["y"] + 60)
    true_soon(visit, "document.getElementById('panel-1')._fullLayout.xaxis.range[0] < 0")
    assert axis(visit, "panel-1")["range"] == pytest.approx(full)
    assert axis(visit, "ribbon")["range"] == pytest.approx(full)


@browsing
def test_the_cross_hair_stands_at_one_step_in_every_plot(visit: Visit):
    area = visit.page.locator("#panel-0 .nsewdrag").first
    area.scroll_into_view_if_needed()
    line = visit.lines("panel-0")["nano/0.8m/0"]
    spot = visit.page.evaluate(
        "([x, y]) => { const node = document.getElementById('panel-0'), l = node._fullLayout, r ="
        " node.getBoundingClientRect(); return [r.left + l.xaxis._offset + l.xaxis.l2p(x), r.top +"
        " l.yaxis._offset + l.yaxis.l2p(y)]; }",
        [line["x"][8], line["y"][8]],
    )
    visit.page.mouse.move(*spot)
    visit.page.wait_for_selector("#panel-3 .cross:not([hidden])")
    for name in ("panel-0", "panel-3", "multiples", "ribbon"):
        at = visit.page.evaluate(
            "name => { const node = document.getElementById(name), axis = node._fullLayout.xaxis; return"
            " axis.p2l(parseFloat(node.querySelector('.cross').style.left) - axis._offset); }",
            name,
        )
        assert at == pytest.approx(line["x"][8], abs=0.05)
    visit.page.mouse.move(2, 2)
    visit.page.wait_for_selector("#panel-3 .cross", state="hidden")


@browsing
def test_a_click_on_a_name_isolates_its_model_and_another_brings_all_back(visit: Visit):
    name = visit.page.locator("#panel-0 .annotation", has_text="0.2m").first
    name.scroll_into_view_if_needed()
    name.click()
    true_soon(visit, "document.querySelectorAll('#chips [aria-pressed=true]').length === 1")
    assert set(visit.lines("panel-0")) == {"nano/0.2m/0", "nano/0.2m/1"}
    visit.page.locator("#panel-0 .annotation", has_text="0.2m").first.click()
    true_soon(visit, "document.querySelectorAll('#chips [aria-pressed=true]').length === 3")


def dots(visit: Visit) -> dict[str, Any]:
    return next(trace for trace in visit.plotted("plane-plot") if trace.get("name") == "heads")


@browsing
def test_the_plane_holds_every_head_of_the_step_and_plays(visit: Visit, stored: Results):
    visit.follow("#step=64")
    rows = stored.heads().filter(model="0.8m", seed=0, step=64).sort("layer", "head")
    found = dots(visit)
    assert found["x"] == pytest.approx(rows["spectral_entropy"].to_list(), abs=0.02)
    assert found["y"] == pytest.approx(rows["frequency_selectivity"].to_list(), abs=0.01)
    assert found["customdata"] == [list(each) for each in rows.select("layer", "head").iter_rows()]
    visit.page.click("#play")
    visit.until("#plane-title", re.compile("step 16000$"))
    rows = stored.heads().filter(model="0.8m", seed=0, step=16000).sort("layer", "head")
    true_soon(visit, "document.getElementById('play').textContent === 'Play'")
    assert dots(visit)["x"] == pytest.approx(rows["spectral_entropy"].to_list(), abs=0.02)
    spot = visit.page.evaluate(
        "([x, y]) => { const node = document.getElementById('plane-plot'), l = node._fullLayout;"
        " node.scrollIntoView({block: 'center', behavior: 'instant'});"
        " const r = node.getBoundingClientRect();"
        " return [r.left + l.xaxis._offset + l.xaxis.l2p(x), r.top + l.yaxis._offset + l.yaxis.l2p(y)]; }",
        [dots(visit)["x"][0], dots(visit)["y"][0]],
    )
    visit.page.mouse.move(*spot)
    visit.page.mouse.click(*spot)
    true_soon(visit, "!document.getElementById('head-title').textContent.includes('most')")


@browsing
def test_the_layer_map_is_the_mean_of_each_layer_s_heads(visit: Visit, stored: Results):
    rows = stored.heads().filter(model="0.8m", seed=0).sort("step")
    (shown,) = visit.plotted("layers-plot")
    for layer in range(4):
        values = rows.filter(layer=layer)["spectral_entropy"].to_numpy().reshape(-1, SMALL[2].heads)
        assert shown["z"][layer] == pytest.approx(values.mean(axis=1).tolist(), abs=0.02)


@browsing
def test_a_click_in_the_layer_map_goes_to_its_step(visit: Visit):
    area = visit.page.locator("#layers-plot .nsewdrag").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    visit.page.mouse.click(box["x"] + 2, box["y"] + box["height"] / 2)
    visit.until("#step-name", "0")
    line = "document.getElementById('layers-plot').layout.shapes.at(-1).x0"
    true_soon(visit, f"{line} === -1")


@browsing
def test_every_view_saves_its_numbers_as_csv(visit: Visit, stored: Results):
    plots = visit.page.locator(".js-plotly-plot:visible").evaluate_all("all => all.map(e => e.id)")
    without = [name for name in plots if not visit.page.locator(f"#{name} > .csv").count()]
    assert (len(plots), without) == (14, [])
    rows = saved(visit, "panel-3")
    checkpoints = stored.checkpoints().filter(status="ok")
    assert len(rows) == checkpoints.height
    one = checkpoints.filter(model="0.2m", seed=1, step=64)["loss"][0]
    (found,) = [r for r in rows if (r["model"], r["seed"], r["step"]) == ("0.2m", "1", "64")]
    assert float(found["mean"]) == pytest.approx(one, rel=1e-3)
    heads = saved(visit, "plane-plot")
    assert len(heads) == stored.heads().filter(model="0.8m", seed=0).height
    assert list(heads[0])[3:] == ["step", "layer", "head", "spectral_entropy", "frequency_selectivity"]
    assert {row["move"] for row in saved(visit, "ribbon")} == {"exploratory", "specialisation"}


@browsing
def test_no_name_becomes_a_formula_in_a_csv_file(browser: Browser, tmp_path: Path):
    shape = type(SMALL[0])('=HYPERLINK("x"),', *list(vars(SMALL[0]).values())[1:])
    stored = open_store(write_store(tmp_path, (shape, SMALL[1]), SMALL_STEPS[:3], holes=False))
    with visiting(browser) as visit:
        visit.open(write_dashboard(stored, None, tmp_path / "page.html"))
        assert {row["model"] for row in saved(visit, "panel-0")} == {'\'=HYPERLINK("x"),', "0.2m"}


@browsing
def test_the_paper_s_points_and_its_threshold_lie_over_model_size(visit: Visit):
    traces = {trace.get("name"): trace for trace in visit.plotted("scale-plot")}
    table6 = traces["paper, table 6: averaged attention"]
    facts6 = facts.table("paper_table6_scaling")
    assert table6["y"] == facts6["spectral_entropy"].to_list()
    assert table6["marker"]["symbol"] == "circle-open"
    sizes = dict(facts.table("pythia_suite").select("size", "params_non_embedding").iter_rows())
    assert table6["x"] == [sizes[model] for model in facts6["model"]]
    assert traces["paper, table 5: attention rows"]["y"] == [3.010]  # no step in common: its last
    shapes = visit.page.evaluate("document.getElementById('scale-plot').layout.shapes.map(s => s.x0)")
    assert sizes["410m"] in shapes
    visit.page.select_option("#ss", "512")
    traces = {trace.get("name"): trace for trace in visit.plotted("scale-plot")}
    assert traces["paper, table 5: attention rows"]["y"] == [3.169]
    visit.page.uncheck("#paper-points")
    visit.link("paper=off")
    assert not [t for t in visit.plotted("scale-plot") if str(t.get("name", "")).startswith("paper")]
    visit.page.select_option("#sm", "loss")
    assert visit.page.locator("#paper-points").is_hidden()


def test_the_paper_s_points_are_its_tables():
    points = paper_points()
    low = [p["value"] for p in points if p["metric"] == "band_power_low"]
    assert low == pytest.approx([0.77, 0.76, 0.544, 0.434, 0.486, 0.517, 0.597])
    assert {(p["table"], p["signal"]) for p in points} == {(6, "averaged attention"), (5, "attention rows")}
    assert {p["model"] for p in points if p["table"] == 5} == {"6.9b"}


def test_models_stand_beside_the_paper_s(tmp_path: Path):
    steps = (0, 512, 143000)
    runs = runs_of(open_store(write_store(tmp_path / "p", PYTHIA[2:9:6], steps, suite="pythia", holes=False)))
    found = beside_paper(runs)
    assert (found["models"], found["shared"]) == (["70m", "6.9b"], False)
    rows = {(row["title"], row["signal"]): row["cells"] for row in found["rows"]}
    small, _ = rows["Spectral entropy", "averaged attention"]
    ours = runs[0].series["averaged_spectral_entropy"].mean[-1]
    assert (small["ours"], small["theirs"]) == (f"{ours:.3g}", "2.67")
    assert float(small["difference"]) == pytest.approx(ours - 2.667, abs=0.01)
    none, late = rows["Spectral entropy at step 512", "attention rows"]
    assert none is None
    assert late["theirs"] == "3.17"
    others = beside_paper(runs_of(open_store(write_store(tmp_path / "n", SMALL, (0, 8), holes=False))))
    assert others["shared"]
    cell = next(row for row in others["rows"] if row["title"] == "Spectral entropy")["cells"][0]
    assert re.fullmatch(r"[\d.]+ to [\d.]+, \d+ models", cell["among"])
    assert cell["words"]
    assert beside_paper([]) == {"models": [], "rows": [], "shared": False}


@browsing
@pytest.mark.parametrize("width", [1400, 390])
def test_names_of_models_over_size_do_not_cover_each_other(browser: Browser, tmp_path: Path, width: int):
    shapes = [type(SMALL[0])(f"model-{i}", 2, 4, 48, round(50_000 * 1.4**i)) for i in range(6)]
    stored = open_store(write_store(tmp_path, shapes, (0, 8), holes=False))
    with visiting(browser, viewport={"width": width, "height": 900}) as visit:
        visit.open(write_dashboard(stored, None, tmp_path / "page.html"))
        tags = [t.bounding_box() for t in visit.page.locator("#scale-plot .annotation text").all()
                if (t.text_content() or "").startswith("model-")]  # fmt: skip
    boxes = [(b["x"], b["y"], b["x"] + b["width"], b["y"] + b["height"]) for b in tags if b]
    assert len(boxes) == 6
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            apart = (
                one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] - 3 or other[1] >= one[3] - 3
            )
            assert apart, (one, other)


@browsing
def test_plots_side_by_side_begin_at_one_height_however_long_their_titles_are(browser: Browser, path: Path):
    with visiting(browser, viewport={"width": 1100, "height": 900}) as visit:
        visit.open(path, "#head=0.0")
        tops = "name => document.getElementById(name).getBoundingClientRect().top"
        for left, right in (("map-plot", "head-plot"), ("plane-plot", "layers-plot")):
            assert visit.page.evaluate(tops, left) == visit.page.evaluate(tops, right)
        heights = "[...document.querySelectorAll('.pair h3')].map(e => e.getBoundingClientRect().height)"
        assert len(set(visit.page.evaluate(heights))) > 1, "titles of one and of two lines"


@browsing
def test_sentences_have_the_signs_of_a_page(visit: Visit):
    visit.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    shown = visit.page.evaluate("document.body.innerText")
    for sign in (" -> ", "<=", ">="):
        assert sign not in shown
    assert not re.search(r"\d%", shown)


@browsing
def test_the_navigation_names_the_sections_that_can_speak(browser: Browser, path: Path, tmp_path: Path):
    with visiting(browser) as visit:
        visit.open(path)
        shown = visit.page.locator("#sections a").all_inner_texts()
        assert shown[:3] == ["Findings", "Over training", "Heads by layer"]
        assert "Model size" in shown
        assert "Checkpoint audit" not in shown
        visit.page.locator("#sections a", has_text="Provenance").click()
        visit.page.wait_for_selector("#sections a[aria-current]:text('Provenance')")
        assert visit.page.locator("#sections").evaluate("e => e.getBoundingClientRect().top") == 0
        single = open_store(write_store(tmp_path, SMALL[:1], SMALL_STEPS[:2], holes=False))
        visit.open(write_dashboard(single, None, tmp_path / "page.html"))
        shown = visit.page.locator("#sections a").all_inner_texts()
        silent = {"Model size", "Head roles", "What else changes, and when", "Checkpoint audit"}
        assert not silent & set(shown)
        assert visit.page.locator("#holes-box").is_hidden()
        assert visit.complaints == []


@browsing
@pytest.mark.slow
def test_no_text_shows_backticks_or_a_wrong_plural(browser: Browser, tmp_path: Path):
    stored = open_store(write_audit(write_store(tmp_path), SMALL[1], 256))
    for analysis in (None, synthetic_analysis()):
        with visiting(browser) as visit:
            visit.open(write_dashboard(stored, analysis, tmp_path / "page.html"))
            text = visit.page.evaluate("document.body.innerText")
            assert "`" not in text
            assert not re.search(r"\b1 (seeds|sizes|models|runs|checkpoints|sentences|heads)\b", text)
            assert not re.search(r"\bseveral probe\b|files-\w{1,7}\b", text)


@browsing
@pytest.mark.skipif(not os.environ.get(AXE), reason=f"{AXE} names no axe.min.js")
@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Browser, path: Path, width: int, scheme: str):
    axe = Path(os.environ[AXE]).read_text(encoding="utf-8")
    options = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme, "bypass_csp": True}
    with visiting(browser, **options) as visit:
        visit.open(path)
        visit.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        visit.page.evaluate(axe)
        found = visit.page.evaluate("axe.run(document)")
    serious = [
        (each["id"], [node["target"] for node in each["nodes"]])
        for each in found["violations"] if each["impact"] in ("serious", "critical")
    ]  # fmt: skip
    assert serious == []
    assert len(found["passes"]) > 20


def test_means_over_seeds_stand_beside_the_paper(stored: Results):
    found = beside_paper(runs_of(stored))
    runs = [run for run in runs_of(stored) if run.model == "0.05m"]
    mean = np.mean([run.series["averaged_spectral_entropy"].mean[-1] for run in runs])
    row = next(
        row for row in found["rows"]
        if row["title"] == "Spectral entropy" and row["signal"] == "averaged attention"
    )  # fmt: skip
    assert row["cells"][0]["ours"] == f"{mean:.3g}"
