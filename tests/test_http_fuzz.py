"""Hostile answers of a hub end in the right files or one clear line, none later than its deadline."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import torch
from http_fuzz import (
    CHANGES,
    REPO,
    SECONDS,
    SECRET,
    WAYS,
    Spoiler,
    hostile_hub,
    outcome,
    print_table,
    try_answers,
)
from loopback_hub import Answer, Hub
from safetensors.torch import load_file, save_file
from suite_material import PROBE, make_suite

from tracker.checkpoints import listing, pace
from tracker.checkpoints.pace import PIECE
from tracker.cli import run
from tracker.records import Checkpoint

RIGHT = {"right files", "one line"}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with hostile_hub(tmp_path_factory.mktemp("hostile")) as hub:
        yield hub


@pytest.mark.parametrize("how", [*CHANGES, *WAYS])
def test_a_hostile_answer_ends_in_the_right_files_or_one_line(hostile: Hub, tmp_path: Path, how: str):
    """Of each kind one: the content server's first answer."""
    hostile.spoil = Spoiler(how, "/content/", 1)
    assert outcome(hostile, "one", tmp_path) in RIGHT


@pytest.mark.slow
@pytest.mark.parametrize("place", ["/revision/", "/content/"])
@pytest.mark.parametrize("how", list(CHANGES))
def test_hostile_answers_while_a_part_is_fetched(hostile: Hub, tmp_path: Path, how: str, place: str):
    hostile.spoil = Spoiler(how, place)
    assert outcome(hostile, "one", tmp_path, head=False) in RIGHT


def test_a_body_of_an_error_is_quoted_in_one_line(hostile: Hub, tmp_path: Path):
    """With the start of a weight file in it, null bytes and all."""
    hostile.spoil = lambda to, answer: replace(answer, status=404) if "/content/" in to.path else answer
    assert outcome(hostile, "one", tmp_path) == "one line"


@pytest.mark.parametrize("place", ["/refs", "/revision/", "/resolve/", "/content/"])
@pytest.mark.parametrize("how", ["a byte now and then", "never ends"])
@pytest.mark.parametrize("head", [True, False], ids=["whole", "part"])
def test_an_answer_that_does_not_end_is_given_up_in_time(
    hostile: Hub, tmp_path: Path, how: str, place: str, head: bool
):
    hostile.spoil, began = Spoiler(how, place), time.monotonic()
    assert outcome(hostile, "one", tmp_path, head=head) in RIGHT
    assert time.monotonic() - began < 5 * SECONDS


@pytest.mark.parametrize("how", ["compressed bomb", "never ends"])
@pytest.mark.parametrize("place", ["/refs", "/revision/"])
def test_an_answer_larger_than_any_should_be_is_not_read_on(
    hostile: Hub, monkeypatch: pytest.MonkeyPatch, how: str, place: str
):
    """Not into memory, though 64 MiB of it would arrive within its time."""
    monkeypatch.setattr(pace, "LARGEST_ANSWER", 1 << 20)
    hostile.spoil = Spoiler(how, place)
    wanted = Checkpoint("hub", "some", 0, 1, "hub", f"{REPO}-one", "step1")
    answer = listing.look([wanted]).inspected[wanted]
    assert f"{REPO}-one" in str(answer)
    assert "has more than 1 MiB" in str(answer)


@pytest.mark.slow
def test_a_slow_file_that_goes_on_arrives_whatever_it_takes(tmp_path: Path):
    """Its pieces come within their time; all of it takes twice as long."""
    with hostile_hub(tmp_path) as hub:
        weights = hub.root / f"{REPO}-one" / "step1" / "model.safetensors"
        save_file(load_file(weights) | {"more": torch.zeros(5 << 18)}, weights, {"format": "pt"})
        hub.bytes_per_second = 2 * PIECE / SECONDS
        root, began = tmp_path / "work", time.monotonic()
        root.mkdir()
        assert outcome(hub, "one", root) == "right files"
        assert time.monotonic() - began > 2 * SECONDS


def test_other_files_would_be_noticed(hostile: Hub, tmp_path: Path):
    hostile.spoil = lambda _, answer: answer
    assert outcome(hostile, "one", tmp_path) == "right files"
    good = hostile.root / f"{REPO}-one" / "step1" / "config.json"
    (found,) = tmp_path.rglob("snapshots/*/config.json")
    found.resolve().write_text(json.dumps(json.loads(good.read_text()) | {"use_cache": False}))
    assert outcome(hostile, "one", tmp_path) == "other files"


def test_a_token_that_a_proxy_echoes_is_shown_nowhere(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """Not in the terminal, a record, the analysis, the dashboard or a log."""
    make_suite(tmp_path, [1, 2], REPO)
    secret = "0123456789-nobody-may-see-this"
    monkeypatch.setenv("HF_TOKEN", secret)

    def proxy(to: BaseHTTPRequestHandler, answer: Answer) -> Answer:
        if "/resolve/" not in to.path or "step2" in to.path or to.headers.get("Authorization") is None:
            return answer
        seen = f"blocked: Authorization: {to.headers['Authorization']}; X-Key: {secret}; {SECRET}"
        return Answer(418, {"X-Error-Message": seen, "X-Request-Id": secret}, seen.encode())

    hub.spoil = proxy
    request = ("suite=hub", f"suite.repo={REPO}", "steps=all", "engine=inline", "cache.folder=cache", *PROBE)
    assert run(["sweep", *request, "probe.sequences=4"]) == 1
    run(["analyse"])
    run(["dashboard"])
    out, err = capfd.readouterr()
    assert "blocked" in out
    assert "[redacted]" in out
    for each in (secret, SECRET):
        assert each not in out + err
        for path in (path for path in tmp_path.rglob("*") if path.is_file()):
            assert each.encode() not in path.read_bytes(), path
    assert "[redacted]" in Path("tracker-store/dashboard.html").read_text()


@pytest.mark.slow
def test_no_hostile_answer_ends_otherwise(tmp_path: Path):
    counts = try_answers(tmp_path, 200)
    print_table(counts, "200 hostile HTTP answers")
    assert {end for _, end in counts} <= RIGHT
