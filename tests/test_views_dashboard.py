"""The dashboard as a file: self-contained, safe, whole, small and quick."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error
from synthetic_store import PYTHIA, PYTHIA_STEPS, SMALL, SMALL_STEPS, synthetic_analysis, unit_of, write_store
from views_browser import DRAWN, Visit, browsing, visiting

from tracker.errors import StoreError
from tracker.store import Store, open_store
from tracker.views import dashboard, write_dashboard
from tracker.views.head_maps import MAP_METRICS

NASTY = "<script>alert(1)</script>"


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    with visiting(browser) as visit:
        yield visit


@browsing
def test_it_opens_without_a_complaint_or_a_request(visit: Visit, path: Path):
    visit.open(path)
    assert visit.complaints == []
    assert [url for url in visit.requests if url.startswith("file://")] == [path.as_uri()]
    assert visit.outside() == []
    row = visit.page.locator("#phase-table tbody tr").last.inner_text().split("\t")
    assert row[:3] == ["0.8m", "exploratory, 2/2 seeds", "(32, 64]"]
    assert row[-2:] == ["0.7 → 0.1", "2.2 → 3.6"]
    assert "In all 6 runs selectivity falls and entropy rises" in visit.text("#findings")
    assert len({line["yaxis"] for line in visit.plotted("multiples")}) == 6
    ribbon = visit.page.locator("#ribbon .ytick").all_text_contents()
    assert [name for name in ribbon if name] == ["0.05m", "0.2m", "0.8m"]
    visit.page.click("#more-name")
    assert "0.8m: exploratory phase from step (32, 64]" in visit.text("#more")
    assert "3 models in 6 runs, 94 checkpoints measured, 1 failed, 1 missing" in visit.text("#counts")
    shown = ["spectral_entropy", "frequency_selectivity", "band_power_low", "loss"]
    assert [visit.chosen(f"#metric-{i}") for i in range(4)] == shown
    assert visit.page.locator(".js-plotly-plot").count() == 14


@browsing
def test_names_that_look_like_html_are_text(visit: Visit, tmp_path: Path):
    shapes = tuple(replace(shape, model=f"{NASTY}{shape.model}%{{x}}") for shape in SMALL[:2])
    write_store(tmp_path, shapes, SMALL_STEPS, suite='"><img src=x onerror=alert(2)>')
    analysis = synthetic_analysis(shapes, suite='"><img src=x onerror=alert(2)>')
    visit.open(write_dashboard(open_store(tmp_path), analysis, tmp_path / "page.html"))
    assert visit.complaints == []
    assert visit.outside() == []
    assert NASTY in visit.text("#chips")
    assert NASTY in visit.text("#phase-table")
    assert NASTY in visit.text("#why-title")
    visit.page.click("#more-name")
    assert NASTY in visit.text("#more")
    assert visit.page.locator("img").count() == 0
    assert visit.page.locator("body script").count() == 3
    ticks = "".join(visit.page.locator("#ribbon .ytick").all_text_contents())
    assert "<script>" in ticks
    visit.page.select_option("#phases", index=1)
    visit.page.wait_for_selector(DRAWN)
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
        visit.page.evaluate("address => { new Image().src = address; }", address)
        visit.page.wait_for_timeout(200)
    assert heard == []
    assert any("Content Security Policy" in complaint for complaint in visit.complaints)


def _listen(server: socket.socket, heard: list[str]) -> None:
    try:
        heard.append(str(server.accept()[1]))
    except OSError:
        return


@browsing
def test_a_store_of_holes_alone_opens(visit: Visit, tmp_path: Path):
    Store(tmp_path).write_hole(unit_of("nano", SMALL[0], 0, 1), "failed", "no weights")
    visit.open(write_dashboard(open_store(tmp_path), None, tmp_path / "page.html"))
    assert visit.complaints == []
    assert "Not analysed yet" in visit.text("#unanalysed")
    assert "no weights" in visit.text("#holes")


@browsing
def test_a_complaint_would_be_noticed(visit: Visit):
    visit.page.goto("about:blank")
    visit.page.evaluate("console.error('seen')")
    visit.page.evaluate("setTimeout(() => { throw new Error('thrown') })")
    visit.page.wait_for_timeout(100)
    assert visit.complaints == ["error: seen", "thrown"]


def test_the_file_is_whole_or_absent_and_its_place_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    results = open_store(write_store(tmp_path / "store", SMALL[:1], SMALL_STEPS[:2], holes=False))
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StoreError, match=r"cannot write the dashboard to .*file/page.html: .*; free or change it"
    ):
        write_dashboard(results, None, tmp_path / "file" / "page.html")
    target = write_dashboard(results, None, tmp_path / "made" / "page.html")
    first = target.read_text(encoding="utf-8")
    monkeypatch.setattr("tracker.atomic.os.replace", _refuse)
    with pytest.raises(StoreError, match="no space left"):
        write_dashboard(results, {"summary": ["other"]}, target)
    assert target.read_text(encoding="utf-8") == first
    assert [item.name for item in target.parent.iterdir()] == ["page.html"]


def _refuse(made: Path, target: Path) -> None:
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


WATCH_DRAWING = """new MutationObserver(all => { window.order ??= []; window.atFirst ??= null;
    for (const {target} of all) {
        if (target.classList.contains('js-plotly-plot') && !order.includes(target.id)) order.push(target.id);
        if (target.dataset.shown && window.atFirst === null) { atFirst = [...order]; window.whenShown?.(); }
    } }).observe(document, {subtree: true, attributeFilter: ['class', 'data-shown']})"""
"""Notes the order in which figures are drawn, and which are when the first view stands."""
BELOW = ["panel-0", "map-plot", "head-plot", "plane-plot", "spectrum-plot", "why-plot", "scale-plot"]


@browsing
def test_the_first_view_waits_for_nothing_that_lies_below_it(browser: Browser, path: Path):
    with visiting(browser) as visit:
        visit.page.add_init_script(WATCH_DRAWING)
        visit.open(path)
        first, order = visit.page.evaluate("[atFirst, order]")
        assert first == ["multiples", "ribbon"]
        assert [name for name in order if name in BELOW] == BELOW
        assert len(order) == 14
        assert visit.complaints == []


@browsing
def test_figures_that_come_into_view_are_drawn_next(browser: Browser, path: Path):
    with visiting(browser) as visit:
        jump = "window.whenShown = () => document.getElementById('scale').scrollIntoView();"
        visit.page.add_init_script(jump + WATCH_DRAWING)
        visit.open(path)
        first, order = visit.page.evaluate("[atFirst, order]")
        assert order.index("scale-plot") == len(first)
        assert len(order) == 14
        assert visit.complaints == []


@browsing
def test_a_page_that_is_printed_early_prints_every_curve(browser: Browser, path: Path):
    with visiting(browser) as visit:
        early = """window.whenShown = () => { dispatchEvent(new Event('beforeprint'));
            setTimeout(() => window.onPaper = [...order]); };"""
        visit.page.add_init_script(early + WATCH_DRAWING)
        visit.open(path)
        curves = {"multiples", "ribbon", *(f"panel-{i}" for i in range(4)), "why-plot", "scale-plot"}
        assert curves <= set(visit.page.evaluate("onPaper"))
        visit.page.evaluate("dispatchEvent(new Event('afterprint'))")
        visit.page.wait_for_selector(DRAWN)
        assert len(visit.page.evaluate("order")) == 14
        assert visit.complaints == []


def _ended(*command: str) -> tuple[float, float]:
    """Runs tracker in a process of its own: its processor seconds and its largest memory in megabytes."""
    process = subprocess.Popen([sys.executable, "-m", "tracker", *command], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3


@browsing
@pytest.mark.slow
def test_the_full_pythia_suite_is_analysed_drawn_and_opened_in_no_time(visit: Visit, tmp_path: Path):
    """154 steps of ten models; what other work of the machine adds is allowed for by half as much again."""
    write_store(tmp_path, PYTHIA, PYTHIA_STEPS, suite="pythia")
    seconds, _ = _ended("analyse", f"store={tmp_path}")
    assert seconds < 30 * 1.5
    seconds, megabytes = _ended("dashboard", f"store={tmp_path}")
    assert seconds < 5.5 * 1.5
    assert megabytes < 500
    path = tmp_path / "dashboard.html"
    assert path.stat().st_size < 15e6
    shown, drawn = [], []
    for _ in range(4):
        started = time.perf_counter()
        visit.open(path)
        drawn.append(time.perf_counter() - started)
        shown.append(int(visit.page.get_attribute("html", "data-shown") or 0))
    assert min(shown) < 1500 * 1.5
    assert min(drawn) < 3
    assert len(visit.lines("panel-0")) == 10
    assert visit.page.locator("#map option").count() == len(MAP_METRICS) == 8
    before = len(visit.plotted("panel-0"))
    visit.page.uncheck("#landmarks")
    assert len(visit.plotted("panel-0")) == before - 1
    assert visit.page.locator("#axes tbody tr").count() == 8
    assert visit.complaints == []
