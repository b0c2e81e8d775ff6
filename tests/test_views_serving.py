"""The served dashboard: what it answers and refuses, and a real sweep that Chromium watches."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import polars as pl
import pytest
from playwright.sync_api import Browser, expect
from synthetic_store import SMALL, SMALL_STEPS, measurement_of, synthetic_analysis, unit_of, write_store
from views_browser import browsing, chromium, restored, shared_store, unpacked, visiting

from tracker.errors import RequestError
from tracker.store import Store, open_store
from tracker.store.progress import Watch, report_progress
from tracker.views.served_store import ServedStore
from tracker.views.serving import MOST_CONNECTIONS, DashboardServer

ROOT = Path(__file__).parent.parent
RUN = "nano/0.8m/0"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@contextmanager
def serving(folder: Path) -> Iterator[DashboardServer]:
    server = DashboardServer(ServedStore(folder, lambda: open_store(folder)))
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DashboardServer, Path]]:
    folder = tmp_path_factory.mktemp("served") / "store"
    shutil.copytree(shared_store(tmp_path_factory), folder)
    (folder / "analysis.json").write_text(json.dumps(synthetic_analysis()))
    with serving(folder) as server:
        server.store.refresh()
        yield server, folder


def answer(
    server: DashboardServer, path: str, method: str = "GET", host: str | None = None
) -> tuple[int, str]:
    connection = http.client.HTTPConnection(
        "127.0.0.1", int(server.address.split(":")[2].strip("/")), timeout=20
    )
    connection.putrequest(method, path, skip_host=host is not None)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, text


def asked(server: DashboardServer, path: str, **parameters: Any) -> dict[str, Any]:
    status, text = answer(server, f"/{path}?{urlencode(parameters)}")
    assert status == 200, text
    return json.loads(text)


def test_any_metric_of_any_head_comes_from_the_store(served: tuple[DashboardServer, Path]):
    server, folder = served
    rows = open_store(folder).heads().filter(model="0.8m").sort("step", "layer", "head")
    steps = rows["step"].n_unique()
    for metric in ("spectral_entropy", "wavelet_entropy_3", "local_share"):
        got = asked(server, "map", run=RUN, metric=metric)
        low, high = got["scale"]["low"], got["scale"]["high"]
        read = restored(unpacked(got["packed"], (steps, 4, 8)), low, high)
        true = rows[metric].to_numpy().reshape(steps, 4, 8)
        assert np.abs(read - np.clip(true, low, high)).max() <= (high - low) / 508 * (1 + 1e-9)
    spectrum = asked(server, "spectrum", run=RUN, layer=2, head=3)["bands"]
    true = rows.filter(layer=2, head=3)["spectrum"].to_list()
    np.testing.assert_allclose(spectrum, true, rtol=6e-4)
    assert asked(server, "spectrum", run=RUN)["packed"]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/map?run=nano/none/0&metric=spectral_entropy", "run=nano/none/0: not in this store"),
        (f"/map?run={RUN}&metric=no", "metric=no: no metric of heads"),
        (f"/spectrum?run={RUN}&layer=-1&head=0", "layer=-1: invalid value; expected an integer from 0"),
        (f"/spectrum?run={RUN}&layer=99&head=0", "layer=99, head=0: 0.8m has no such head"),
    ],
)
def test_what_the_store_does_not_hold_is_refused_by_name(
    served: tuple[DashboardServer, Path], path: str, why: str
):
    assert answer(served[0], path) == (400, f"{why}\n")


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/analysis.json", "/data/.."],
)
def test_no_path_is_a_file(served: tuple[DashboardServer, Path], path: str):
    assert answer(served[0], path) == (404, "unknown path\n")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", ""])
def test_a_request_by_another_name_is_refused(served: tuple[DashboardServer, Path], host: str):
    assert answer(served[0], "/data", host=host)[0] == 403


@pytest.mark.parametrize("request_line", [
    b"GET http://[::1 HTTP/1.1", b"GET //[ HTTP/1.1", b"GET /\xff\xfe HTTP/1.1", b"GET", b"\x16\x03\x01\x00",
    b"GET / HTTP/9.9", b"GET " + b"/" * 70_000 + b" HTTP/1.1", b"GET /map?run=%00&metric=[ HTTP/1.1",
    b"GET /spectrum?run=x&layer=999999999999999999999 HTTP/1.1",
])  # fmt: skip
def test_a_malformed_request_is_refused_without_a_traceback(
    served: tuple[DashboardServer, Path], request_line: bytes, capfd: pytest.CaptureFixture[str]
):
    port = int(served[0].address.rpartition(":")[2].strip("/"))
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(request_line + f"\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        client.shutdown(socket.SHUT_WR)
        answered = client.recv(100)
    assert not answered or re.match(rb"(HTTP/1\.1 [45]\d\d )|(<!DOCTYPE HTML>)", answered), answered
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_idle_connections_are_bounded_and_slow_readers_do_not_hold_up_the_end(tmp_path: Path):
    write_store(tmp_path, SMALL[:1], SMALL_STEPS)
    before = threading.active_count()
    clients = []
    with serving(tmp_path) as server:
        port = int(server.address.rpartition(":")[2].strip("/"))
        for _ in range(2 * MOST_CONNECTIONS):  # each asks for the page and reads nothing of it
            clients.append(socket.create_connection(("127.0.0.1", port), timeout=5))
            clients[-1].sendall(
                f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
            )  # and reads nothing
        time.sleep(0.5)
        assert threading.active_count() - before <= MOST_CONNECTIONS + 3
        began = time.monotonic()
    assert time.monotonic() - began < 2
    for client in clients:
        client.close()


def test_it_answers_to_localhost_too(served: tuple[DashboardServer, Path]):
    port = served[0].address.split(":")[2].strip("/")
    assert answer(served[0], "/progress", host=f"localhost:{port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD", "CONNECT"])
def test_it_answers_get_alone(served: tuple[DashboardServer, Path], method: str):
    assert answer(served[0], "/data", method=method)[0] == 501


def test_it_listens_on_loopback_alone(served: tuple[DashboardServer, Path]):
    port = int(served[0].address.split(":")[2].strip("/"))
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_a_port_that_is_taken_is_a_clear_error(served: tuple[DashboardServer, Path]):
    port = int(served[0].address.split(":")[2].strip("/"))
    with pytest.raises(
        RequestError,
        match=rf"^view.port={port}: not available on 127.0.0.1: Address already in use; choose anoth",
    ):
        DashboardServer(served[0].store, port)


def test_a_store_that_comes_later_and_is_rewritten_is_followed(tmp_path: Path):
    folder = tmp_path / "later"
    store = ServedStore(folder, lambda: open_store(folder))
    store.refresh()
    assert (store.data()["runs"], store.progress()["problem"]) == ([], None)
    write_store(folder, SMALL[:1], SMALL_STEPS[:4], holes=False)
    store.refresh()
    first = store.progress()
    assert (first["measured"], store.data()["stale"]) == (4, False)
    unit = unit_of("nano", SMALL[0], 0, SMALL_STEPS[2])
    Store(folder).write(unit, measurement_of(unit, SMALL[0], 1.0), replace=True)
    store.refresh()
    assert store.progress()["version"] != first["version"]
    (folder / "analysis.json").write_text("{")
    store.refresh()
    assert "analysis.json is not valid JSON" in store.progress()["problem"]
    assert store.progress()["measured"] == 4
    (folder / "analysis.json").write_text("{}")
    os.utime(folder / "analysis.json", (1, 1))
    store.refresh()
    assert (store.progress()["problem"], store.data()["stale"]) == (None, True)


def test_an_older_analysis_is_served_and_the_follower_survives_a_broken_one(tmp_path: Path):
    folder = write_store(tmp_path / "store", SMALL[:1], holes=False)
    analysis, path = synthetic_analysis(SMALL[:1]), folder / "analysis.json"
    for entry in analysis["phases"]:
        entry.pop("change_points")
    for change in analysis["lead_lag"]:
        change.pop("model")
    path.write_text(json.dumps(analysis))
    with serving(folder) as server:
        _until(lambda: asked(server, "progress")["measured"] == 16)
        data = asked(server, "data")
        assert (len(data["phases"]), data["lead_lag"], data["unread"]) == (1, [], ["lead_lag"])
        path.write_text("[1, 2]")
        _until(lambda: asked(server, "progress")["problem"])
        assert asked(server, "progress")["problem"].startswith("Could not read the store, showing its last")
        path.write_text("{}")
        _until(lambda: asked(server, "data")["phases"] == [])
        assert asked(server, "progress")["problem"] is None


def test_a_sweep_reports_while_it_runs_and_is_named_when_it_was_killed(tmp_path: Path):
    watch = Watch(tmp_path)
    with report_progress(tmp_path) as progress:
        progress.begin("measuring")
        progress.moved("m seed 0", 3, 9, "2/s, 3 s left", "step 4")
        _until(lambda: watch.look() and watch.look()[0]["bars"])
        (sweep,) = watch.look()
        assert (sweep["doing"], sweep["alive"]) == ("measuring", True)
        bar = {"name": "m seed 0", "done": 3, "total": 9, "pace": "2/s, 3 s left", "note": "step 4"}
        assert sweep["bars"] == [bar]
    assert watch.look() == []
    dying = (
        "import os, sys, time; from pathlib import Path; from tracker.store.progress import report_progress\n"
        "with report_progress(Path(sys.argv[1])):\n    time.sleep(1)\n    os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", dying, str(tmp_path)], env=_environment())
    assert [sweep["alive"] for sweep in watch.look()] == [False]
    with report_progress(tmp_path):
        _until(lambda: [sweep["alive"] for sweep in watch.look()] == [True])
    assert not (tmp_path / ".running").exists()


def test_a_sweep_of_another_machine_that_falls_silent_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / ".running").mkdir()
    heartbeat = {"machine": "elsewhere", "pid": 1, "since": 0.0, "doing": "measuring", "bars": []}
    (tmp_path / ".running" / "a.json").write_text(json.dumps(heartbeat))
    watch = Watch(tmp_path)
    assert [sweep["alive"] for sweep in watch.look()] == [True]
    monkeypatch.setattr("tracker.store.heartbeat.STALE_SECONDS", 0.0)
    assert [sweep["alive"] for sweep in watch.look()] == [False]


def _until(happened: Any, timeout: float = 20) -> None:
    end = time.monotonic() + timeout
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@contextmanager
def _tracker(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command as a process of its own, which a test that fails leaves no trace of."""
    with subprocess.Popen(
        [sys.executable, "-m", "tracker", *arguments], cwd=folder, env=_environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


SERVED_AT = r"Serving (http://127\.0\.0\.1:\d+/) to this machine alone; Ctrl-C ends it\n"
NOTE_WHAT_IS_SEEN = """() => { window.seen = []; setInterval(() => {
  const lines = (document.getElementById('panel-0')?.data || []).filter(trace => trace.meta);
  const [status, bars] = ['live-status', 'live-bars'].map(id => document.getElementById(id).textContent);
  window.seen.push([status, bars, lines.length ? lines[0].x.length : 0]); }, 100); }"""


@browsing
@pytest.mark.slow
def test_chromium_watches_a_real_sweep_without_a_reload(browser: Browser, tmp_path: Path):
    request = ("suite.models=[0.05m]", "suite.train_steps=64", "probe.number=192", "sink=none", "store=live")
    with _tracker(tmp_path, "dashboard", "serve=true", "store=live") as server, visiting(browser) as visit:
        assert server.stdout is not None
        served_at = re.fullmatch(SERVED_AT, server.stdout.readline())
        assert served_at is not None
        told = server.stdout.readline()
        assert told == "live: holds no measurement yet; the page fills when a sweep stores some\n"
        visit.page.goto(served_at[1])
        expect(visit.page.locator("#live-status")).to_have_text(
            "No sweep is running; this page updates when one starts."
        )
        visit.page.evaluate(NOTE_WHAT_IS_SEEN)
        with _tracker(tmp_path, "sweep", *request) as sweep:
            said, _ = sweep.communicate(timeout=200)
            assert sweep.returncode == 0, said
        expect(visit.page.locator("#phase-table tbody tr")).to_have_count(1, timeout=20_000)
        _judge(visit.page.evaluate("window.seen"))  # gone, had the page been loaded again
        # What a file has no room for comes from the store on demand.
        visit.page.select_option("#map", "wavelet_entropy_1")
        expect(visit.page.locator("#map-title")).to_contain_text("Wavelet entropy, scale 1")
        visit.page.select_option("#layer", "head")
        expect(visit.page.locator("#spectrum-note")).to_contain_text("head")
        assert visit.complaints == []
        assert {
            url for url in visit.requests if not url.startswith((served_at[1], "data:", "blob:"))
        } == set()
        server.send_signal(signal.SIGINT)
        rest, _ = server.communicate(timeout=20)
        assert (server.returncode, rest) == (0, "Stopped serving; nothing is lost\n")
        expect(visit.page.locator("#live-status")).to_have_text(
            "The server has stopped; showing the last update."
        )


def _judge(seen: list[tuple[str, str, int]]) -> None:
    """What a page showed while a sweep ran: training, measuring, rates, and a curve that grew."""
    assert {"A sweep is running: training.", "A sweep is running: measuring."} <= {
        words for words, _, _ in seen
    }
    assert any(re.search(r"0.05m seed 0\d+ of 64[\d.]+/(s|min), .* left", bars) for _, bars, _ in seen)
    lengths = [length for _, _, length in seen]
    assert lengths == sorted(lengths)
    assert lengths[-1] == 8
    assert any(0 < length < 8 for length in lengths), "no part of the curve was seen"


@browsing
def test_names_from_a_store_are_text_on_a_served_page_too(browser: Browser, tmp_path: Path):
    nasty = "<script>alert(1)</script>"
    shape = SMALL[0].__class__(nasty, 2, 4, 48, 56_000)
    write_store(tmp_path, (shape,), SMALL_STEPS[:4], suite=nasty, holes=False)
    with report_progress(tmp_path) as progress, serving(tmp_path) as server, visiting(browser) as visit:
        progress.moved(nasty, 1, 2, nasty, nasty)
        server.store.refresh()
        visit.page.goto(f"{server.address}#run={quote(f'{nasty}/{nasty}/0')}")
        expect(visit.page.locator("#live-bars .name")).to_have_text(nasty)
        expect(visit.page.locator("#map-title")).to_contain_text(nasty)
        visit.page.select_option("#map", "local_share")
        expect(visit.page.locator("#map-title")).to_contain_text("Local share")
        assert visit.complaints == []


def test_several_probes_are_refused_before_anything_is_served(tmp_path: Path):
    write_store(tmp_path, SMALL[:1], SMALL_STEPS[:1], holes=False)
    record = next((tmp_path / "checkpoints").glob("*/*/*/*"))
    other = record.with_name(record.name + "x")
    other.mkdir()
    for table in record.glob("*.parquet"):
        frame = pl.read_parquet(table)
        if "key" in frame.columns:
            frame = frame.with_columns(key=pl.col("key") + "x")
        frame.with_columns(probe=pl.lit("another")).write_parquet(other / table.name)
    with _tracker(tmp_path, "dashboard", "serve=true", f"store={tmp_path}") as done:
        said, _ = done.communicate(timeout=60)
    assert done.returncode == 2
    assert "holds results of several probes, which are never mixed; choose one" in said
