"""The dashboard in a real Chromium, used as a person would."""

import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright
from synthetic_store import PYTHIA, PYTHIA_STEPS, SMALL, SMALL_STEPS, synthetic_analysis, unit_of, write_store

from tracker.errors import StoreError
from tracker.store import Store, open_store
from tracker.views import dashboard, write_dashboard

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--no-first-run"]  # fmt: skip
NASTY = "<script>alert(1)</script>"
DRAWN = "html[data-ready]"
browsing = pytest.mark.skipif(shutil.which(CHROMIUM) is None, reason=f"no Chromium at {CHROMIUM}")


@dataclass
class Visit:
    """A page and everything that went wrong or outside while it was open."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, path: Path, link: str = "") -> None:
        self.page.goto("about:blank")
        self.page.goto(path.as_uri() + link)
        self.page.wait_for_selector(DRAWN)

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def chosen(self, selector: str) -> str:
        return self.page.locator(selector).input_value()

    def plotted(self, name: str) -> Any:
        """The traces that a plot holds now."""
        return self.page.evaluate(f"JSON.parse(JSON.stringify(document.getElementById('{name}').data))")

    def link(self, part: str) -> str:
        """The address's hash, once it says ``part``."""
        self.page.wait_for_function("part => location.hash.includes(part)", arg=part)
        return "#" + self.page.url.split("#", 1)[1]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    page = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    visit = Visit(page)
    page.on("console", lambda message: visit.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    page.on("dialog", lambda dialog: (visit.complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: visit.requests.append(request.url))
    yield visit
    page.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_store(tmp_path_factory.mktemp("store"), seeds=2)
    return write_dashboard(open_store(folder), synthetic_analysis(seeds=2), folder / "dashboard.html")


def outside(visit: Visit) -> list[str]:
    return [url for url in visit.requests if not url.startswith(("file://", "data:", "blob:", "about:"))]


@browsing
def test_it_opens_without_a_complaint_or_a_request(visit: Visit, path: Path):
    visit.open(path)
    assert visit.complaints == []
    assert [url for url in visit.requests if url.startswith("file://")] == [path.as_uri()]
    assert outside(visit) == []
    assert "0.8m: exploratory phase from step (32, 64]" in visit.text("#summary")
    assert "3 models in 6 runs, 94 checkpoints measured, 1 failed, 1 missing" in visit.text("#counts")
    assert [visit.chosen(f"#metric-{i}") for i in range(4)] == ["spectral_entropy", "frequency_selectivity", "band_power_low", "loss"]  # fmt: skip
    assert visit.page.locator(".js-plotly-plot").count() == 9


@browsing
def test_curves_hold_what_the_store_holds(visit: Visit, path: Path):
    visit.open(path)
    stored = open_store(path.parent).checkpoints().sort("step")
    lines = {trace["meta"]: trace for trace in visit.plotted("panel-3") if trace.get("meta")}
    assert len(lines) == 6
    for key, line in lines.items():
        _, model, seed = key.split("/")
        rows = [row for row in stored.to_dicts() if (row["model"], str(row["seed"]), row["status"]) == (model, seed, "ok")]
        assert line["y"] == pytest.approx([row["loss"] for row in rows], rel=1e-3)
        assert line["x"][:2] == [-1, 0]


@browsing
def test_a_metric_is_chosen_and_a_model_hidden(visit: Visit, path: Path):
    visit.open(path)
    visit.page.select_option("#metric-1", "previous_token_score")
    assert "previous_token_score" in visit.link("previous_token_score")
    assert "Previous-token score" in str(visit.page.locator("#panel-1").get_attribute("aria-label"))
    before = len([t for t in visit.plotted("panel-0") if t.get("meta")])
    visit.page.locator("#chips .chip", has_text="0.2m").click()
    after = [t["meta"] for t in visit.plotted("panel-0") if t.get("meta")]
    assert (before, len(after)) == (6, 4)
    assert not any("0.2m" in key for key in after)
    visit.page.locator("#seeds .chip", has_text="1").click()
    assert [t["meta"] for t in visit.plotted("panel-0") if t.get("meta")] == ["nano/0.05m/0", "nano/0.8m/0"]
    assert visit.page.locator("#chips .chip", has_text="0.2m").get_attribute("aria-pressed") == "false"


@browsing
def test_the_bands_and_axes_can_be_changed(visit: Visit, path: Path):
    visit.open(path)
    visit.page.select_option("#band", "none")
    assert not [t for t in visit.plotted("panel-0") if t.get("fill") == "toself"]
    visit.page.select_option("#band", "heads")
    assert len([t for t in visit.plotted("panel-0") if t.get("fill") == "toself"]) == 6
    visit.page.select_option("#x", "linear")
    line = next(t for t in visit.plotted("panel-0") if t.get("meta") == "nano/0.8m/1")
    assert line["x"] == list(SMALL_STEPS)
    visit.page.select_option("#x", "tokens")
    line = next(t for t in visit.plotted("panel-0") if t.get("meta") == "nano/0.8m/1")
    assert 10 ** line["x"][-1] == pytest.approx(SMALL_STEPS[-1] * 2048)
    assert visit.complaints == []


@browsing
def test_the_slider_is_dragged_and_the_map_follows(visit: Visit, path: Path):
    visit.open(path)
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
    heads = open_store(path.parent).heads().sort("layer", "head")
    chosen = [row for row in heads.to_dicts() if (row["model"], row["seed"], row["step"]) == ("0.8m", 0, step)]
    flat = [value for row in now for value in row]
    scale = visit.plotted("map-plot")[0]
    width = (scale["zmax"] - scale["zmin"]) / 254
    expected = [min(max(row["spectral_entropy"], scale["zmin"]), scale["zmax"]) for row in chosen]
    assert flat == pytest.approx(expected, abs=0.51 * width)


@browsing
def test_a_head_is_clicked_and_followed(visit: Visit, path: Path):
    visit.open(path)
    assert "the head that changes most" in visit.text("#head-title")
    area = visit.page.locator("#map-plot .nsewdrag").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    # Model 0.8m: 4 layers (0 at the bottom) of 8 heads; the middle of layer 1, head 2.
    visit.page.mouse.click(box["x"] + box["width"] * 2.5 / 8, box["y"] + box["height"] * (1 - 1.5 / 4))
    visit.page.wait_for_function("document.getElementById('head-title').textContent.startsWith('Layer 1, head 2')")
    visit.link("head=1.2")
    visit.page.locator("#map-plot").focus()
    visit.page.keyboard.press("ArrowRight")
    visit.page.keyboard.press("ArrowUp")
    visit.page.wait_for_function("document.getElementById('head-title').textContent.startsWith('Layer 2, head 3')")
    assert visit.complaints == []


@browsing
def test_play_runs_through_the_steps_and_stops(visit: Visit, path: Path):
    visit.open(path, "#step=8000")
    visit.page.click("#play")
    assert visit.text("#play") == "Pause"
    visit.page.wait_for_function("document.getElementById('step-name').textContent === '16000'")
    visit.page.wait_for_function("document.getElementById('play').textContent === 'Play'")


@browsing
def test_a_shared_link_restores_the_view(visit: Visit, path: Path):
    visit.open(path)
    visit.page.select_option("#metric-0", "loss")
    visit.page.locator("#chips .chip", has_text="0.05m").click()
    visit.page.select_option("#run", "nano/0.2m/1")
    visit.page.select_option("#map", "band_power_low")
    visit.page.locator("#step").fill("3")
    visit.page.select_option("#layer", "2")
    visit.page.select_option("#sm", "sink_share")
    visit.page.select_option("#sx", "d_model")
    visit.page.select_option("#ss", "64")
    visit.page.click("#theme")
    link = visit.link("theme=dark")
    visit.open(path, link)
    assert visit.chosen("#metric-0") == "loss"
    assert visit.page.locator("#chips .chip", has_text="0.05m").get_attribute("aria-pressed") == "false"
    assert (visit.chosen("#run"), visit.chosen("#map"), visit.chosen("#layer")) == ("nano/0.2m/1", "band_power_low", "2")
    assert visit.text("#step-name") == "4"
    assert (visit.chosen("#sm"), visit.chosen("#sx"), visit.chosen("#ss")) == ("sink_share", "d_model", "64")
    assert visit.page.get_attribute("html", "data-theme") == "dark"
    assert visit.complaints == []


@browsing
def test_a_link_with_nonsense_opens_the_first_view(visit: Visit, path: Path):
    link = f"#m=no,such&x=up&run={NASTY}&step=abc&head=99.99&big=length&theme=__proto__&toString=1&sm=x&ss=7&layer=9"
    visit.open(path, link)
    assert visit.complaints == []
    assert visit.chosen("#metric-0") == "spectral_entropy"
    assert visit.chosen("#ss") == "last"
    assert visit.page.locator("#panels .panel:visible").count() == 4


@browsing
def test_the_scale_view_names_a_threshold_or_says_why_not(visit: Visit, path: Path):
    visit.open(path)
    assert "no threshold is claimed over 3 sizes" in visit.text("#scale-sentence")
    visit.page.select_option("#sm", "loss")
    assert "No threshold was looked for in this metric" in visit.text("#scale-sentence")
    dots = next(t for t in visit.plotted("scale-plot") if t.get("mode") == "markers")
    assert sorted(set(dots["x"])) == [shape.non_embedding for shape in SMALL]


@browsing
def test_holes_and_their_reasons_are_on_the_page(visit: Visit, path: Path):
    visit.open(path)
    rows = visit.page.locator("#holes tbody tr").all_inner_texts()
    assert len(rows) == 2
    assert "shard 2 of 3 is truncated <b>at</b> byte 17" in rows[1]
    crosses = [t for t in visit.plotted("panel-0") if t.get("marker", {}).get("symbol") == "x-thin"]
    assert len(crosses[0]["x"]) == 2


@browsing
def test_names_that_look_like_html_are_text(visit: Visit, tmp_path: Path):
    shapes = tuple(replace(shape, model=f"{NASTY}{shape.model}%{{x}}") for shape in SMALL[:2])
    write_store(tmp_path, shapes, SMALL_STEPS, suite='"><img src=x onerror=alert(2)>')
    analysis = synthetic_analysis(shapes, suite='"><img src=x onerror=alert(2)>')
    visit.open(write_dashboard(open_store(tmp_path), analysis, tmp_path / "page.html"))
    assert visit.complaints == []
    assert outside(visit) == []
    assert NASTY in visit.text("#chips")
    assert NASTY in visit.text("#summary")
    assert visit.page.locator("img").count() == 0
    assert visit.page.locator("body script").count() == 3
    ticks = "".join(visit.page.locator("#strip .ytick").all_text_contents())
    assert "<script>" in ticks
    visit.page.select_option("#phases", index=1)
    box = visit.page.locator("#panel-0 .nsewdrag").first.bounding_box()
    assert box is not None
    for share in (0.2, 0.4, 0.6, 0.8):
        visit.page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] * 0.6)
    assert visit.complaints == []


@browsing
def test_a_name_reads_the_same_when_hovered(visit: Visit, tmp_path: Path):
    shape = replace(SMALL[0], model="<b>%{y}</b>&amp;$x$")
    write_store(tmp_path, (shape,), SMALL_STEPS, holes=False)
    visit.open(write_dashboard(open_store(tmp_path), None, tmp_path / "page.html"))
    visit.page.evaluate("Plotly.Fx.hover('panel-0', [{curveNumber: 1, pointNumber: 4}])")
    assert "<b>%{y}</b>&amp;$x$, step 8" in visit.page.locator("#panel-0 .hoverlayer").text_content()  # type: ignore[operator]


@browsing
def test_the_page_cannot_ask_another_machine_even_if_told_to(visit: Visit, path: Path):
    heard: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: _listen(server, heard), daemon=True)
        thread.start()
        visit.open(path)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(Error, match="Failed to fetch"):
            visit.page.evaluate("address => fetch(address)", address)
        visit.page.evaluate("address => { const i = new Image(); i.src = address; document.body.append(i); }", address)
        visit.page.wait_for_timeout(200)
    assert heard == []
    assert any("Content Security Policy" in complaint for complaint in visit.complaints)


def _listen(server: socket.socket, heard: list[str]) -> None:
    try:
        heard.append(str(server.accept()[1]))
    except OSError:
        return


@browsing
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (820, "light")])
def test_it_fits_small_screens_in_both_themes(browser: Browser, path: Path, width: int, scheme: Any):
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.goto(path.as_uri())
    page.wait_for_selector(DRAWN)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.get_attribute("html", "data-theme") == scheme
    page.close()


@browsing
def test_it_prints_in_light_colours_on_a_page(visit: Visit, path: Path):
    visit.open(path, "#theme=dark")
    visit.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert visit.page.get_attribute("html", "data-theme") == "light"
    widest = "Math.max(...[...document.querySelectorAll('.plot')].map(plot => plot.getBoundingClientRect().right))"
    assert visit.page.evaluate(widest) <= 680
    visit.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert visit.page.get_attribute("html", "data-theme") == "dark"
    assert visit.complaints == []


@browsing
def test_a_store_of_holes_alone_opens(visit: Visit, tmp_path: Path):
    Store(tmp_path).write_hole(unit_of("nano", SMALL[0], 0, 1), "failed", "no weights")
    visit.open(write_dashboard(open_store(tmp_path), None, tmp_path / "page.html"))
    assert visit.complaints == []
    assert "Not analysed yet" in visit.text("#summary")
    assert "no weights" in visit.text("#holes")


@browsing
def test_a_complaint_would_be_noticed(visit: Visit, path: Path):
    visit.open(path)
    visit.page.evaluate("console.error('seen')")
    visit.page.evaluate("setTimeout(() => { throw new Error('thrown') })")
    visit.page.wait_for_timeout(100)
    assert visit.complaints == ["error: seen", "thrown"]


def test_the_file_is_whole_or_absent_and_its_place_is_named(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    results = open_store(path.parent)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write the dashboard to .*file/page.html: .*; free or change it"):
        write_dashboard(results, None, tmp_path / "file" / "page.html")
    target = write_dashboard(results, None, tmp_path / "made" / "page.html")
    first = target.read_text(encoding="utf-8")
    monkeypatch.setattr(Path, "replace", _refuse)
    with pytest.raises(StoreError, match="no space left"):
        write_dashboard(results, {"summary": ["other"]}, target)
    assert target.read_text(encoding="utf-8") == first
    assert [item.name for item in target.parent.iterdir()] == ["page.html"]


def _refuse(self: Path, target: Path) -> Path:
    raise OSError("no space left")


def test_the_policy_names_exactly_the_scripts_of_the_page(path: Path):
    text = path.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy.group(1)
    assert "unsafe-eval" not in policy.group(1)
    assert policy.group(1).count("sha256-") == 2
    assert "'unsafe-inline'" not in policy.group(1).split("style-src")[0]
    held = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.S)
    assert held is not None
    assert json.loads(held.group(1))["counts"]["models"] == 3
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', text.split("<script")[0]) == []


def test_line_ends_and_end_tags_cannot_break_an_inline_script():
    made = dashboard._inline_script("a\r\nb\rc '</script>' '<!--'")
    assert made == "a\nb\nc '<\\/script>' '<\\!--'"


@browsing
@pytest.mark.slow
def test_the_full_pythia_suite_opens_in_three_seconds_below_fifteen_megabytes(visit: Visit, tmp_path: Path):
    write_store(tmp_path, PYTHIA, PYTHIA_STEPS, suite="pythia")
    analysis = synthetic_analysis(PYTHIA, PYTHIA_STEPS, suite="pythia")
    path = write_dashboard(open_store(tmp_path), analysis, tmp_path / "dashboard.html")
    assert path.stat().st_size < 15e6
    start = time.perf_counter()
    visit.open(path)
    assert time.perf_counter() - start < 3
    assert len([t for t in visit.plotted("panel-0") if t.get("meta")]) == 10
    visit.page.check("#landmarks")
    assert len(visit.plotted("panel-0")) > len(visit.plotted("panel-0")) - 1
    assert visit.complaints == []
