"""The dashboard in a real Chromium, used as a person would."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser
from synthetic_store import SMALL, SMALL_STEPS, synthetic_analysis, write_audit, write_store
from views_browser import Visit, browsing, visiting

from tracker.store import Results, open_store
from tracker.views import write_dashboard
from tracker.views.data import dashboard_data


@browsing
def test_curves_hold_what_the_store_holds(visit: Visit, stored: Results):
    checkpoints = stored.checkpoints().sort("step")
    lines = visit.lines("panel-3")
    assert len(lines) == 6
    for key, line in lines.items():
        _, model, seed = key.split("/")
        rows = checkpoints.filter(model=model, seed=int(seed), status="ok")
        assert line["y"] == pytest.approx(rows["loss"].to_list(), rel=1e-3)
        assert line["x"][:2] == [-1, 0]


@browsing
def test_a_metric_is_chosen_and_a_model_hidden(visit: Visit):
    visit.page.select_option("#metric-1", "previous_token_score")
    visit.link("previous_token_score")
    assert "Previous-token score" in str(visit.page.locator("#panel-1").get_attribute("aria-label"))
    before = visit.lines("panel-0")
    visit.page.locator("#chips .chip", has_text="0.2m").click()
    after = visit.lines("panel-0")
    assert (len(before), len(after)) == (6, 4)
    assert not any("0.2m" in key for key in after)
    visit.page.locator("#seeds .chip", has_text="1").click()
    assert list(visit.lines("panel-0")) == ["nano/0.05m/0", "nano/0.8m/0"]
    assert visit.page.locator("#chips .chip", has_text="0.2m").get_attribute("aria-pressed") == "false"


@browsing
def test_the_bands_and_axes_can_be_changed(visit: Visit):
    visit.page.select_option("#band", "none")
    assert not [t for t in visit.plotted("panel-0") if t.get("fill") == "toself"]
    visit.page.select_option("#band", "heads")
    assert len([t for t in visit.plotted("panel-0") if t.get("fill") == "toself"]) == 6
    visit.page.select_option("#x", "linear")
    assert visit.lines("panel-0")["nano/0.8m/1"]["x"] == list(SMALL_STEPS)
    visit.page.select_option("#x", "linear-tokens")
    assert visit.lines("panel-0")["nano/0.8m/1"]["x"] == [step * 2048 for step in SMALL_STEPS]
    ticks = [text for text in visit.page.locator("#panel-0 .xtick").all_text_contents() if text]
    assert (ticks[0], ticks[-1]) == ("0", "30M")
    visit.page.select_option("#x", "tokens")
    assert 10 ** visit.lines("panel-0")["nano/0.8m/1"]["x"][-1] == pytest.approx(SMALL_STEPS[-1] * 2048)


@browsing
def test_the_slider_is_dragged_and_the_map_follows(visit: Visit, stored: Results):
    assert visit.text("#step-name") == "16000"
    last = visit.plotted("map-plot")[0]["z"]
    slider = visit.page.locator("#step")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    visit.page.mouse.move(box["x"] + box["width"] - 8, middle)
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] + box["width"] * 0.55, middle, steps=6)
    visit.page.mouse.up()
    step = int(visit.text("#step-name"))
    assert 64 <= step <= 512
    visit.link(f"step={step}")
    now = visit.plotted("map-plot")[0]["z"]
    assert now != last
    heads = stored.heads().filter(model="0.8m", seed=0, step=step).sort("layer", "head")
    scale = visit.plotted("map-plot")[0]
    width = (scale["zmax"] - scale["zmin"]) / 254
    expected = heads["spectral_entropy"].clip(scale["zmin"], scale["zmax"]).to_list()
    assert [value for row in now for value in row] == pytest.approx(expected, abs=0.51 * width)


@browsing
def test_a_head_is_clicked_and_followed(visit: Visit):
    assert "(changes most)" in visit.text("#head-title")
    area = visit.page.locator("#map-plot .nsewdrag").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    # Model 0.8m: 4 layers (0 at the bottom) of 8 heads; the middle of layer 1, head 2.
    visit.page.mouse.click(box["x"] + box["width"] * 2.5 / 8, box["y"] + box["height"] * (1 - 1.5 / 4))
    visit.until("#head-title", re.compile("^Layer 1, head 2"))
    visit.link("head=1.2")
    visit.page.locator("#map-plot").focus()
    visit.page.keyboard.press("ArrowRight")
    visit.page.keyboard.press("ArrowUp")
    visit.until("#head-title", re.compile("^Layer 2, head 3"))


@browsing
def test_play_runs_through_the_steps_and_stops(visit: Visit):
    visit.follow("#step=8000")
    visit.page.click("#play")
    assert visit.text("#play") == "Pause"
    visit.until("#step-name", "16000")
    visit.until("#play", "Play")


@browsing
def test_a_shared_link_restores_the_view(visit: Visit, path: Path):
    visit.page.select_option("#metric-0", "loss")
    visit.page.locator("#chips .chip", has_text="0.05m").click()
    visit.page.select_option("#run", "nano/0.2m/1")
    visit.page.select_option("#map", "band_power_low")
    visit.page.locator("#step").fill("3")
    visit.page.select_option("#layer", "2")
    visit.page.select_option("#sp", "energy")
    visit.page.select_option("#why-run", "nano/0.2m/0")
    visit.page.select_option("#sm", "sink_share")
    visit.page.select_option("#sx", "d_model")
    visit.page.select_option("#ss", "64")
    visit.page.click("#theme")
    link = visit.link("theme=dark")
    visit.open(path, link)
    assert visit.chosen("#metric-0") == "loss"
    assert visit.page.locator("#chips .chip", has_text="0.05m").get_attribute("aria-pressed") == "false"
    names = ("run", "map", "layer", "sp", "why-run", "sm", "sx", "ss")
    assert [visit.chosen(f"#{name}") for name in names] == [
        "nano/0.2m/1", "band_power_low", "2", "energy", "nano/0.2m/0", "sink_share", "d_model", "64",
    ]  # fmt: skip
    assert visit.text("#step-name") == "4"
    assert visit.page.get_attribute("html", "data-theme") == "dark"


@browsing
def test_a_link_with_nonsense_opens_the_first_view(visit: Visit):
    nasty = "sp=no&why=no&events=no&run=<script>alert(1)</script>&theme=__proto__&toString=1"
    visit.follow(f"#m=no,such&x=up&step=abc&head=99.99&big=length&sm=x&ss=7&layer=9&{nasty}")
    assert visit.text("#step-name") == "16000"
    assert visit.chosen("#metric-0") == "spectral_entropy"
    assert visit.chosen("#ss") == "last"
    assert visit.page.locator("#panels .panel:visible").count() == 4


@browsing
def test_bands_and_wavelet_energy_are_the_store_s_and_layers_can_be_chosen(visit: Visit, stored: Results):
    rows = stored.heads().filter(model="0.8m", seed=0, step=256)
    visit.page.select_option("#layer", "1")
    visit.until("#spectrum-note", re.compile("layer 1"))
    (bands,) = visit.plotted("spectrum-plot")
    mean = np.mean(rows.filter(layer=1)["spectrum"].to_list(), axis=0)
    at = SMALL_STEPS.index(256) - 1  # a step of this run failed
    assert 10 ** np.array([row[at] for row in bands["z"]]) == pytest.approx(mean, rel=0.02)
    visit.page.select_option("#sp", "energy")
    visit.until("#spectrum-note", re.compile("squared wavelet coefficients"))
    (energy,) = visit.plotted("spectrum-plot")
    mean = np.mean(rows.filter(layer=1)["wavelet_energy"].to_list(), axis=0)
    assert 10 ** np.array([row[at] for row in energy["z"]]) == pytest.approx(mean, rel=0.02)
    visit.page.select_option("#sp", "wavelet")
    visit.until("#spectrum-note", re.compile("Entropy of the squared"))
    (entropies,) = visit.plotted("spectrum-plot")
    row = stored.checkpoints().filter(model="0.8m", seed=0, step=256)
    assert entropies["z"][3][at] == pytest.approx(row["wavelet_entropy_3"][0], rel=1e-3)
    assert visit.page.is_disabled("#layer")


@browsing
def test_lead_and_lag_are_drawn_in_one_run_and_in_all(visit: Visit):
    visit.page.select_option("#why-run", "nano/0.2m/1")
    assert visit.text("#why-title").startswith("0.2m seed 1: 2 changes")
    marks = {trace["name"]: trace for trace in visit.plotted("why-plot")}
    assert {name: len(trace["x"]) for name, trace in marks.items()} == {"before": 2, "still": 2, "after": 2}
    assert len({trace["marker"]["symbol"] for trace in marks.values()}) == 3
    runs = visit.plotted("verdicts-plot")
    names = [f"{model} seed {seed}" for model in ("0.05m", "0.2m", "0.8m") for seed in (0, 1)]
    assert [run["name"] for run in runs] == names
    assert set(runs[0]["x"]) == {-1.5}  # of the loss, from 2 to 1 octaves earlier; sinks have no interval
    rows = [row.split("\t") for row in visit.page.locator("#why-table tbody tr").all_inner_texts()]
    assert rows[0][1::4] == ["Loss", "1 to 2 octaves earlier"]
    assert rows[1][-1] == "no change beyond noise"
    largest = "largest contributors: layer 1 head 2 (25 %), layer 0 head 1 (13 %)"
    assert f"half of it in 3 of 8 heads; {largest}" in visit.text("#why-heads")
    assert visit.page.locator("#verdicts-legend .key").all_inner_texts() == ["0.05m", "0.2m", "0.8m"]


@browsing
def test_suspect_checkpoints_are_hollow_and_lead_to_their_maps(browser: Browser, tmp_path: Path):
    folder = write_audit(write_store(tmp_path), SMALL[1], 256)
    made = write_dashboard(open_store(folder), synthetic_analysis(), folder / "dashboard.html")
    with visiting(browser) as visit:
        visit.open(made)
        assert "1 checkpoint of 46 shown is suspect; 2 kinds of finding" in visit.text("#audit-verdict")
        assert [row.split("\t")[1] for row in visit.page.locator("#audit tbody tr").all_inner_texts()] == [
            "same-weights", "missing",
        ]  # fmt: skip
        (hollow,) = [t for t in visit.plotted("panel-0") if "open" in str(t.get("marker", {}).get("symbol"))]
        assert hollow["x"] == [8]
        assert visit.lines("panel-0")["nano/0.2m/0"]["y"][SMALL_STEPS.index(256)] is None
        visit.page.click("#suspects-name")
        visit.page.click("#suspects button")
        visit.until("#step-name", "256")
        assert "may not match its name" in visit.text("#map-suspect")
        cells, outlines = visit.plotted("map-plot")
        assert (cells["opacity"], outlines["marker"]["symbol"], len(outlines["x"])) == (0, "square-open", 16)
        area = visit.page.locator("#map-plot .nsewdrag").first.bounding_box()
        assert area is not None
        visit.page.mouse.click(
            area["x"] + area["width"] * 1.5 / 4, area["y"] + area["height"] * (1 - 2.5 / 4)
        )
        visit.until("#head-title", re.compile("^Layer 2, head 1"))
        assert visit.plotted("head-plot")[2]["x"] == [8]
        columns = np.array(visit.plotted("spectrum-plot")[0]["z"], dtype=float)
        assert np.isnan(columns).all(axis=0).tolist() == [step == 256 for step in SMALL_STEPS]
        visit.page.locator("#step").press("ArrowRight")
        visit.until("#step-name", "512")
        assert len(visit.plotted("map-plot")) == 1
        assert visit.complaints == []


@browsing
def test_everything_can_be_reached_and_used_by_keyboard_alone(visit: Visit):
    page = visit.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "trajectories"
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    controls = "chip x band phases metric-0 enlarge-3 run map play step map-plot sp layer why-run sm sx ss"
    assert set(controls.split()) <= reached
    page.locator("#chips .chip").first.focus()
    page.keyboard.press("Space")
    assert page.locator("#chips .chip").first.get_attribute("aria-pressed") == "false"
    assert page.evaluate("document.activeElement.title") == "0.05m"
    page.locator("#metric-2").focus()
    page.keyboard.type("Loss")
    visit.link("loss")
    assert visit.chosen("#metric-2") == "loss"
    page.locator("#step").focus()
    page.keyboard.press("Home")
    visit.until("#step-name", "0")
    page.locator("#play").focus()
    page.keyboard.press("Enter")
    visit.until("#step-name", re.compile("^[1-8]$"))
    page.keyboard.press("Enter")
    assert visit.text("#play") == "Play"


@browsing
def test_the_scale_view_says_why_it_names_no_threshold(visit: Visit):
    assert "no threshold is claimed over 3 sizes" in visit.text("#scale-sentence")
    visit.page.select_option("#sm", "loss")
    assert "No threshold search for this metric" in visit.text("#scale-sentence")
    dots = next(t for t in visit.plotted("scale-plot") if t.get("mode") == "markers")
    assert sorted(set(dots["x"])) == [shape.non_embedding for shape in SMALL]
    for axis, sizes in (("all_heads", [8, 16, 32]), ("d_head", [12, 16, 16]), ("rotary_dims", [3, 4, 4])):
        visit.page.select_option("#sx", axis)
        dots = next(t for t in visit.plotted("scale-plot") if t.get("mode") == "markers")
        assert sorted(set(dots["x"])) == sorted(set(sizes))


@browsing
def test_every_axis_of_size_is_compared_and_an_interval_is_drawn(
    browser: Browser, stored: Results, tmp_path: Path
):
    entry = synthetic_analysis()["thresholds"][0] | {
        "low": 56_000, "high": 200_000, "interval": [56_000, 800_000], "effect": 0.4, "p_value": 0.01,
        "p_corrected": 0.04, "shape": "step", "aicc": -12.0, "best_axes": ["params_non_embedding"],
        "sizes": 3,
    }  # fmt: skip
    other = entry | {"axis": "n_layers", "low": None, "high": None, "interval": None, "aicc": -2.0}
    analysis = synthetic_analysis(seeds=2) | {"thresholds": [entry, other]}
    with visiting(browser) as visit:
        visit.open(write_dashboard(stored, analysis, tmp_path / "page.html"), "#paper=off")
        rows = [row.split("\t") for row in visit.page.locator("#axes tbody tr").all_inner_texts()]
        shown = "Non-embedding parameters|3|(56k, 200k]|(56k, 800k]|0.4|0.01|0.04|step|0|yes"
        assert rows[0] == shown.split("|")
        assert rows[1][:4] == ["Layers", "3", "none found", "–"]
        assert rows[1][-2:] == ["10", "–"]
        layout = "JSON.parse(JSON.stringify(document.getElementById('scale-plot').layout.shapes))"
        assert [(s["x0"], s["x1"]) for s in visit.page.evaluate(layout)] == [
            (56_000, 800_000),
            (56_000, 200_000),
        ]
        assert visit.complaints == []


@browsing
def test_holes_and_their_reasons_are_on_the_page(visit: Visit):
    rows = visit.page.locator("#holes tbody tr").all_inner_texts()
    assert len(rows) == 2
    assert "shard 2 of 3 is truncated <b>at</b> byte 17" in rows[1]
    crosses = [t for t in visit.plotted("panel-0") if t.get("marker", {}).get("symbol") == "x-thin"]
    assert len(crosses[0]["x"]) == 2


@browsing
def test_it_fits_a_phone_in_the_phones_own_theme(browser: Browser, path: Path):
    with visiting(browser, viewport={"width": 390, "height": 844}, color_scheme="dark") as phone:
        phone.open(path)
        assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
        assert phone.page.get_attribute("html", "data-theme") == "dark"
        assert phone.complaints == []


@browsing
def test_it_prints_in_light_colours_on_a_page(visit: Visit):
    visit.follow("#theme=dark")
    visit.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert visit.page.get_attribute("html", "data-theme") == "light"
    right = "[...document.querySelectorAll('.plot svg, table')].map(i => i.getBoundingClientRect().right)"
    assert max(visit.page.evaluate(right)) <= 680
    visit.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert visit.page.get_attribute("html", "data-theme") == "dark"


@browsing
def test_escape_leaves_an_enlarged_panel(visit: Visit):
    visit.page.click("#enlarge-1")
    assert visit.page.locator("#panels .panel:visible").count() == 1
    visit.page.keyboard.press("Escape")
    assert visit.page.locator("#panels .panel:visible").count() == 4


@browsing
def test_axes_name_decades_and_the_last_step_and_no_tick_has_a_prefix(visit: Visit):
    ticks = [text for text in visit.page.locator("#ribbon .xtick").all_text_contents() if text]
    assert ticks == ["0", "1", "10", "100", "1k", "10k", "16k"]
    for text in visit.page.locator(".plot:not(#ribbon) .ytick").all_text_contents():
        assert not {"µ", "n", "m"} & set(text[-1:] if text[:1].isdigit() else "")


@browsing
def test_sizes_that_all_models_share_are_no_axis(browser: Browser, tmp_path: Path):
    wider = replace(SMALL[0], model="wider", non_embedding=99_000)
    results = open_store(write_store(tmp_path, (SMALL[0], wider), (0, 8), holes=False))
    data = dashboard_data(results, None, served=True)
    values = {axis["title"]: {run["facts"][axis["name"]] for run in data["runs"]} for axis in data["axes"]}
    assert any(len(found) < 2 for found in values.values())
    with visiting(browser) as visit:
        visit.open(write_dashboard(results, None, tmp_path / "page.html"))
        offered = visit.page.locator("#sx option").all_text_contents()
    assert set(offered) == {title for title, found in values.items() if len(found - {None}) > 1}


@browsing
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_of_lines_are_readable_against_the_paper(
    browser: Browser, stored: Results, tmp_path: Path, scheme: str
):
    """A contrast of 4.5:1, as WCAG 2.2 asks for of text (1.4.3)."""

    def luminance(colour: str) -> float:
        parts = np.array([int(each) for each in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    with visiting(browser) as visit:
        visit.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        visit.open(write_dashboard(stored, synthetic_analysis(seeds=2), tmp_path / "page.html"))
        paper = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        names = visit.page.locator("#panel-0 .annotation text").all()
        found = [each.evaluate("node => getComputedStyle(node).fill") for each in names]
    assert len(found) >= 3
    for colour in found:
        low, high = sorted((luminance(colour), luminance(paper)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, colour
