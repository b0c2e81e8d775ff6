"""Hashes, commits and file names that a lying hub gives never become paths outside the cache."""

import json
import shutil
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session
from loopback_hub import Answer, Hub, loopback_hub, use_hub
from saved_models import save

from tracker.checkpoints import CheckpointCache, Labels, inspect
from tracker.checkpoints.claims import Claims
from tracker.checkpoints.hub import discover
from tracker.checkpoints.remote import is_plain
from tracker.cli import run
from tracker.errors import CheckpointError, RequestError
from tracker.measurement.probe import ProbeSource, read_text
from tracker.records import Checkpoint

REPO = "lab/pythia-some"
ODD = (
    "../../../../x",
    "/tmp/x",
    "a" * 39,
    "A" * 40,
    "a" * 41,
    "",
    "a" * 39 + "/",
    "..",
    "a" * 38 + "\0x",
    7,
    None,
    [],
)
NAMES = (
    "../config.json",
    "/config.json",
    "a/../../config.json",
    "..\\config.json",
    "config.json\0",
    "./config.json",
    "",
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.chdir(tmp_path)
    with loopback_hub(tmp_path / "hub") as running:
        use_hub(monkeypatch, running, tmp_path / "home")
        save(running.root / REPO / "step1")
        yield running
    close_session()


def fetched(commit: str | None = None) -> Path:
    """The folder of the one checkpoint, fetched into a cache below the current folder."""
    wanted = Checkpoint("hub", "some", 0, 1, "hub", REPO, "step1", commit=commit)
    return (
        CheckpointCache(Path("deep/down/below/cache").absolute()).fetch(wanted, inspect(wanted)).fetched.path
    )


def in_listing(
    change: Callable[[dict[str, Any]], None],
) -> Callable[[BaseHTTPRequestHandler, Answer], Answer]:
    """Change what the hub says of a revision and its files."""

    def spoil(handler: BaseHTTPRequestHandler, answer: Answer) -> Answer:
        if "/revision/" in handler.path:
            told = json.loads(answer.content)
            change(told)
            answer.content = json.dumps(told).encode()
        return answer

    return spoil


def in_headers(
    header: str, value: str, method: str = "HEAD"
) -> Callable[[BaseHTTPRequestHandler, Answer], Answer]:
    """Name something else in a header of what the hub says of a file."""

    def spoil(handler: BaseHTTPRequestHandler, answer: Answer) -> Answer:
        if "/resolve/" in handler.path and handler.command == method and header in answer.headers:
            answer.headers[header] = value
        return answer

    return spoil


def refused(place: Path, match: str | None = None) -> str:
    """The one line in which fetching ends; nothing is written outside the cache."""
    before = {path for path in place.rglob("*") if "cache" not in path.parts}
    with pytest.raises(CheckpointError, match=match) as raised:
        fetched()
    written = {
        path
        for path in place.rglob("*")
        if "cache" not in path.parts and path.name not in ("deep", "down", "below")
    }
    assert written <= before
    assert not Path("/tmp/x").exists()
    assert REPO in str(raised.value)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_a_hash_of_the_listing(hub: Hub, tmp_path: Path, odd: object) -> None:
    def change(told: dict[str, Any]) -> None:
        told["siblings"][0] |= {"blobId": odd}
        told["siblings"][0].pop("lfs", None)

    hub.spoil = in_listing(change)
    if odd in (None, ""):
        assert (fetched() / "config.json").is_file()  # the file's own header has the hash
    else:
        refused(tmp_path)


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_a_commit_of_the_listing(hub: Hub, tmp_path: Path, odd: object) -> None:
    hub.spoil = in_listing(lambda told: told.update(sha=odd))
    refused(tmp_path, "names no commit")


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_name_of_the_listing(hub: Hub, tmp_path: Path, name: str) -> None:
    def change(told: dict[str, Any]) -> None:
        told["siblings"] = [
            each | {"rfilename": name} if each["rfilename"] == "config.json" else each
            for each in told["siblings"]
        ]

    hub.spoil = in_listing(change)
    refused(tmp_path, "has no config.json")


@pytest.mark.parametrize(
    "name", ["../../x.safetensors", "/etc/model.safetensors", "\0", "a\\b", "Config.JSON"]
)
def test_a_file_that_is_not_needed_may_be_called_anything(hub: Hub, name: str) -> None:
    hub.spoil = in_listing(
        lambda told: told["siblings"].append({"rfilename": name, "size": 1, "blobId": "a" * 40})
    )
    assert (fetched() / "model.safetensors").is_file()


def test_shards_whose_names_differ_by_case_only_are_refused(hub: Hub, tmp_path: Path) -> None:
    folder = save(hub.root / REPO / "step1", "sharded safetensors")
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    first, *_ = sorted(set(told["weight_map"].values()))
    (folder / "SHARD.safetensors").write_bytes((folder / first).read_bytes())
    (folder / first).rename(folder / "shard.safetensors")
    names = sorted(told["weight_map"])
    told["weight_map"] = {
        n: "shard.safetensors" if told["weight_map"][n] == first else told["weight_map"][n] for n in names
    }
    index.write_text(json.dumps(told | {"weight_map": told["weight_map"] | {"extra": "SHARD.safetensors"}}))
    refused(tmp_path, "differ by case only")


@pytest.mark.parametrize("odd", ["../../../../x", "/tmp/x", "b" * 40, "b" * 64, "", "a" * 39 + "/"])
@pytest.mark.parametrize("header", ["ETag", "X-Linked-Etag", "X-Repo-Commit"])
def test_a_header_while_a_file_is_fetched(hub: Hub, tmp_path: Path, header: str, odd: str) -> None:
    hub.spoil = in_headers(header, f'"{odd}"' if "tag" in header.lower() else odd)
    refused(tmp_path)


@pytest.mark.parametrize("odd", ["../../../../x", "/tmp/x", "a" * 39])
def test_a_header_where_the_listing_has_no_hash(hub: Hub, tmp_path: Path, odd: str) -> None:
    hub.silent_hashes = True
    hub.spoil = in_headers("ETag", f'"{odd}"')
    refused(tmp_path, "nothing was fetched")


def test_a_commit_beside_an_answer_that_there_is_no_such_file(hub: Hub, tmp_path: Path) -> None:
    """The library notes for that commit that the file does not exist."""

    def spoil(handler: BaseHTTPRequestHandler, answer: Answer) -> Answer:
        if "/resolve/" in handler.path:
            return Answer(404, {"X-Repo-Commit": "../../../../x", "X-Error-Code": "EntryNotFound"}, b"")
        return answer

    hub.spoil = spoil
    refused(tmp_path)


@pytest.mark.parametrize("odd", ["../../../../x", "/tmp/x", "a" * 39])
@pytest.mark.parametrize("header", ["ETag", "X-Repo-Commit"])
def test_a_header_while_a_data_set_is_fetched(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str, odd: str
) -> None:
    (hub.root / "org/texts/main").mkdir(parents=True)
    (hub.root / "org/texts/main/part.jsonl").write_text('{"text": "one"}')
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "deep/down/below/cache"))
    source = ProbeSource(dataset="org/texts", file="part.jsonl")
    assert read_text(source) == "one"
    shutil.rmtree(tmp_path / "deep")
    before = set(tmp_path.rglob("*"))
    hub.spoil = in_headers(header, odd)
    with pytest.raises(RequestError, match="which is none; nothing of it was fetched"):
        read_text(source)
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} - before <= {
        tmp_path / "deep", tmp_path / "deep/down", tmp_path / "deep/down/below"
    }  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_a_commit_of_a_branch(hub: Hub, odd: object) -> None:
    def spoil(handler: BaseHTTPRequestHandler, answer: Answer) -> Answer:
        if handler.path.endswith("/refs"):
            told = json.loads(answer.content)
            told["branches"][0]["targetCommit"] = odd
            answer.content = json.dumps(told).encode()
        return answer

    hub.spoil = spoil
    with pytest.raises(CheckpointError, match="names a revision without a commit"):
        discover(REPO, Labels("hub"))


def test_a_commit_of_a_history(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.titles[f"{REPO}@step1"] = [("step 1", "step1")]

    def spoil(handler: BaseHTTPRequestHandler, answer: Answer) -> Answer:
        if "/commits/" in handler.path:
            told = json.loads(answer.content)
            told[0]["id"] = "../../../../x"
            answer.content = json.dumps(told).encode()
        return answer

    hub.spoil = spoil
    request = ("suite=hub", f"suite.repo={REPO}", "suite.branch=step1", "suite.pattern='step (?P<step>\\d+)'")
    assert run(["plan", *request, "probe.sequences=2", "sink=none"]) != 0
    assert "names a commit that is none" in capsys.readouterr().err


def test_a_claim_that_names_paths_removes_nothing(hub: Hub, tmp_path: Path) -> None:
    """The notes on what is in the cache are files that others may have written."""
    fetched()
    claims = Claims(tmp_path / "deep/down/below/cache")
    (path,) = claims.folder.glob("*.json")
    whole = json.loads(path.read_text())
    for change in (
        {"commit": "../../../../x"},
        *({"pieces": [whole["pieces"][0] | {key: "../../x"}]} for key in ("name", "blob")),
    ):
        path.write_text(json.dumps(whole | change))
        assert claims.all() == []


@pytest.mark.parametrize("name", ["config.json", "a/b.safetensors", ".gitattributes", "ünï.json", "a..b"])
def test_ordinary_names_are_taken(name: str) -> None:
    assert is_plain(name)
