import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from huggingface_hub import close_session, constants, snapshot_download
from loopback_hub import Hub, loopback_hub, use_hub
from saved_models import FORMS, expected, load, save

from tracker import checkpoints
from tracker.checkpoints import CheckpointCache, Labels, answers, cached, declared, discover_hub, inspect
from tracker.checkpoints.download import remove_partial
from tracker.errors import CheckpointError, MissingCheckpoint, RequestError
from tracker.records import Checkpoint

fails = partial(pytest.raises, CheckpointError)
refused = partial(pytest.raises, RequestError)
missing = partial(pytest.raises, MissingCheckpoint)

REPO = "lab/pythia-tiny"
NOISE = ("README.md", "optimizer.pt", "tf_model.h5", "flax_model.msgpack", "training_args.bin", "model.onnx")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model in every form, with the files beside it that real repositories have and nobody needs."""
    root = tmp_path_factory.mktemp("saved")
    folders = {form: save(root / form, form, seed=1) for form in FORMS}
    for folder in folders.values():
        for name in NOISE:
            (folder / name).write_bytes(os.urandom(1 << 16))
    return folders


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with loopback_hub(tmp_path / "hub") as running:
        use_hub(monkeypatch, running, tmp_path / "home")
        yield running
    close_session()


@pytest.fixture
def serve(hub: Hub, saved: dict[str, Path]) -> Callable[..., Path]:
    """Puts a saved model on the hub as one revision."""

    def put(form: str = "safetensors", revision: str = "step7", repo: str = REPO) -> Path:
        return Path(shutil.copytree(saved[form], hub.root / repo / revision))

    return put


def at(step: int = 7, repo: str = REPO, commit: str | None = None) -> Checkpoint:
    (one,) = declared(repo, Labels("s", "tiny"), [step])
    return Checkpoint(**{**vars(one), "commit": commit})


@pytest.mark.parametrize("form", FORMS)
def test_every_form_arrives_equal_with_the_files_and_requests_announced(hub: Hub, serve, form: str) -> None:
    source = serve(form)
    commit, files = inspected = inspect(at())
    assert hub.asked() == [f"GET /api/models/{REPO}/revision/step7"]
    assert commit == hub.commit(source)
    assert all(file.is_hashed and file.size == (source / file.name).stat().st_size for file in files)
    hub.log.clear()
    fetched = checkpoints.fetch(at())
    assert fetched.commit == commit
    names = sorted(path.name for path in fetched.path.iterdir())
    assert names == sorted(file.name for file in files)
    heavy = [name for name in names if name not in ("config.json", "tokenizer.json")]
    assert all(name.startswith("pytorch_model" if "bin" in form else "model") for name in heavy)
    # One for the revision and two a file: the library asks for its hash and address first.
    place = f"/{REPO}/resolve/{commit}"
    large = [name for name in names if name.endswith((".bin", ".safetensors"))]
    small = [name for name in names if name not in large]
    assert hub.asked("/api/") == [f"GET /api/models/{REPO}/revision/step7"]
    assert sorted(hub.asked("/resolve/")) == [
        *(f"GET {place}/{name}" for name in small),
        *(f"HEAD {place}/{name}" for name in names),
    ]
    assert sorted(hub.asked("/content/")) == [f"GET /content/{REPO}/step7/{name}" for name in large]
    assert sum(line.sent for line in hub.log if "/api/" not in line.path) == inspected.size
    asked = len(hub.log)
    want, tensors = expected(1, shift=1.0 if form == "both" else 0.0), load(fetched.path)
    assert tensors.keys() == want.keys()
    assert all(torch.equal(tensors[name], want[name]) for name in want)
    assert len(hub.log) == asked == 1 + 2 * len(names), "loading from the folder asked the hub again"


def test_second_fetch_asks_once_and_a_pinned_one_never(hub: Hub, serve) -> None:
    serve()
    first = checkpoints.fetch(at())
    hub.log.clear()
    assert checkpoints.fetch(at()) == first
    assert hub.asked() == [f"GET /api/models/{REPO}/revision/step7"]
    hub.log.clear()
    assert checkpoints.fetch(at(commit=first.commit)).path == first.path
    assert hub.log == []


def test_moved_branch_is_followed_unless_pinned(hub: Hub, serve) -> None:
    source = serve()
    first = checkpoints.fetch(at())
    save(source, seed=2)
    second = checkpoints.fetch(at())
    assert second.commit == hub.commit(source) != first.commit
    assert torch.equal(load(second.path)["lm_head.weight"], expected(2)["lm_head.weight"])
    assert torch.equal(load(first.path)["lm_head.weight"], expected(1)["lm_head.weight"])


def test_cache_dir(serve, tmp_path: Path) -> None:
    serve()
    fetched = checkpoints.fetch(at(), cache_dir=tmp_path / "elsewhere")
    assert fetched.path.is_relative_to(tmp_path / "elsewhere")
    assert not (tmp_path / "home" / "hub").exists()


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cached.cache_folder(None) == tmp_path / "huggingface" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "c"))
    assert cached.cache_folder(None) == tmp_path / "c"
    assert cached.cache_folder("~/x") == Path.home() / "x"


def test_discover_is_two_requests_and_pins(hub: Hub, serve) -> None:
    for revision in ("main", "step7", "step0", "step10-tokens2B"):
        serve(revision=revision)
    found = discover_hub(REPO, Labels(seed=3))
    main = hub.commit(hub.root / REPO / "main")
    assert hub.asked() == [f"GET /api/models/{REPO}/refs", f"GET /api/models/{REPO}/revision/{main}"]
    assert [(one.step, one.revision, one.tokens_seen) for one in found] == [
        (0, "step0", None),
        (7, "step7", None),
        (10, "step10-tokens2B", 2 * 10**9),
    ]
    for one in found:
        assert (one.suite, one.model, one.seed, one.exists) == ("hub", "pythia-tiny", 3, True)
        assert one.commit == hub.commit(hub.root / REPO / one.revision)
    (one,) = discover_hub(REPO, Labels(model="t"), pattern=r"step(?P<step>1\d)-.*")
    assert (one.model, one.step) == ("t", 10)
    assert checkpoints.fetch(one).commit == one.commit


def test_discover_refuses(hub: Hub, serve) -> None:
    with refused(match="suite.repo: lab/none: the repository does not exist, .*404"):
        discover_hub("lab/none")
    with refused(match="suite.repo: a/b/c: invalid repository name"):
        discover_hub("a/b/c")
    serve(revision="main")
    serve(revision="v1")
    with refused(match=r"no branch, tag or folder of main names a train.*; found main, v1; set suite.p"):
        discover_hub(REPO)
    serve(revision="step1")
    serve(revision="step01")
    assert [each.revision for each in discover_hub(REPO)] == ["step01"], (
        "the plan tells that step1 is left out"
    )
    hub.log.clear()
    with refused(match="has no group named step"):
        discover_hub(REPO, pattern="x")
    assert hub.log == []


def test_unknown_private_and_gated(hub: Hub, serve, monkeypatch: pytest.MonkeyPatch) -> None:
    serve()
    with missing(match=f"^tiny seed 0 step 8: {REPO} at step8: the repository has no rev"):
        checkpoints.fetch(at(8))
    with fails(match="^tiny seed 0 step 7: lab/none at step7: the repository does not exist, .*404"):
        checkpoints.fetch(at(repo="lab/none"))
    hub.private.add(REPO)
    with fails(match="is private and asked for without a valid token") as caught:
        checkpoints.fetch(at())
    assert not isinstance(caught.value, MissingCheckpoint)
    with refused(match="is private"):
        discover_hub(REPO)
    hub.gated.add(REPO)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with fails(match="the repository is gated; accept its terms") as caught:
        checkpoints.fetch(at())
    assert "hf_secret" not in str(caught.value)


def test_token_goes_to_the_hub_and_nowhere_else(hub: Hub, serve, monkeypatch: pytest.MonkeyPatch) -> None:
    serve()
    hub.private.add(REPO)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    checkpoints.fetch(at())
    assert {line.host: line.authorized for line in hub.log} == {"127.0.0.1": True, "localhost": False}


def test_incomplete_revisions(hub: Hub, serve) -> None:
    source = serve("sharded safetensors")
    shard = sorted(source.glob("*-of-*"))[0]
    shard.unlink()
    with fails(match=f"{REPO} at step7: its set of shards is not complete; found model-"):
        inspect(at())
    for path in source.glob("model*"):
        path.unlink()
    with fails(match=r"at step7: has no weights .*found README.md, config.json") as caught:
        inspect(at())
    assert not isinstance(caught.value, MissingCheckpoint)
    (source / "config.json").unlink()
    with fails(match=r"at step7: has no config.json; found README.md"):
        inspect(at())


def test_the_index_tells_which_files_are_shards_whatever_they_are_called(hub: Hub, serve) -> None:
    source = serve("sharded safetensors")
    index = source / "model.safetensors.index.json"
    names = sorted(path.name for path in source.glob("*-of-*"))
    text = index.read_text()
    for number, name in enumerate(names):
        (source / name).rename(source / f"shard_{number}.safetensors")
        text = text.replace(name, f"shard_{number}.safetensors")
    index.write_text(text)
    (source / "adapter.safetensors").write_bytes(b"another file of this format")
    wanted = {f"shard_{number}.safetensors" for number in range(len(names))} | {index.name}
    assert {file.name for file in inspect(at()).files} >= wanted
    assert "adapter.safetensors" not in {file.name for file in inspect(at()).files}
    assert torch.equal(load(checkpoints.fetch(at()).path)["lm_head.weight"], expected(1)["lm_head.weight"])


@pytest.mark.parametrize("noted", [True, False])
def test_a_whole_commit_of_a_cache_that_may_only_be_read_needs_no_lock(
    hub: Hub, serve, tmp_path: Path, noted: bool
) -> None:
    serve()
    checkpoints.fetch(at())
    cache = cached.cache_folder(None)
    shutil.rmtree(cache / ".locks")
    (cache / ".locks").write_text("")  # root may write anywhere, but makes no folder of a file
    if not noted:  # another program keeps commits without the names that they were asked for by
        shutil.rmtree(next(cache.glob("models--*")) / "refs")
    hub.log.clear()
    assert torch.equal(load(checkpoints.fetch(at()).path)["lm_head.weight"], expected(1)["lm_head.weight"])
    assert hub.asked("/resolve/") == []


def test_a_stale_shard_of_another_set_is_not_fetched(hub: Hub, serve) -> None:
    source = serve("sharded bin")
    (source / "pytorch_model-00003-of-00003.bin").write_bytes(b"left over from a save in three shards")
    named = {file.name for file in inspect(at()).files}
    assert "pytorch_model-00002-of-00002.bin" in named
    assert "pytorch_model-00003-of-00003.bin" not in named
    fetched = checkpoints.fetch(at())
    assert {path.name for path in fetched.path.iterdir()} == named


def test_an_index_that_is_none_or_names_too_much_is_one_line(hub: Hub, serve) -> None:
    source = serve("sharded bin")
    index = source / "pytorch_model.bin.index.json"
    (source / "pytorch_model-00003-of-00003.bin").write_bytes(b"")
    whole = index.read_text()
    index.write_text(whole.replace("00002-of-00002", "00004-of-00004"))
    with fails(match="not complete; found .*, which names pytorch_model-00004-of-00004.bin as well"):
        inspect(at())
    index.write_text("[" * 100_000)
    with fails(match="is not an index of weight shards"):
        inspect(at())


def test_shards_that_the_index_does_not_name(serve) -> None:
    source = serve("sharded bin")
    index = source / "pytorch_model.bin.index.json"
    index.write_text(index.read_text().replace("pytorch_model-00001-of", "../pytorch_model-00001-of"))
    with fails(match="'../pytorch_model-00001-of-00002.bin', which is not a plain file"):
        checkpoints.fetch(at())


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_altered_file_is_noticed_removed_and_fetched_anew(hub: Hub, serve, name: str) -> None:
    serve()
    hub.altered.add(name)
    with fails(match=f"^tiny seed 0 step 7: {REPO} at step7: {name} arrived altered"):
        checkpoints.fetch(at())
    with fails(match="arrived altered"):
        checkpoints.fetch(at())
    hub.altered.clear()
    hub.log.clear()
    assert torch.equal(load(checkpoints.fetch(at()).path)["lm_head.weight"], expected(1)["lm_head.weight"])
    assert [line for line in hub.asked("/resolve/") if name not in line] == []


def test_truncated_file_is_noticed_even_without_hashes(hub: Hub, serve) -> None:
    serve()
    hub.truncated.add("model.safetensors")
    with fails(match=r"model.safetensors arrived cut short \(26796 bytes of 53592\); run the same command"):
        checkpoints.fetch(at())
    hub.silent_hashes = True
    with fails(match="model.safetensors arrived cut short"):
        checkpoints.fetch(at())


def test_cut_connection_is_taken_up_again(hub: Hub, serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    source = serve()
    hub.cut = [10_000]
    path = checkpoints.fetch(at()).path
    assert (path / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    parts = [line.sent for line in hub.log if "/content/" in line.path]
    assert parts == [10_000, (source / "model.safetensors").stat().st_size - 10_000]


def test_xet_storage_is_used_and_its_bytes_are_counted(hub: Hub, saved, tmp_path: Path) -> None:
    pytest.importorskip("hf_xet", reason="not on every platform")
    folder = Path(shutil.copytree(saved["safetensors"], hub.root / REPO / "step7"))
    hub.xet = tmp_path / "xet"
    cache = CheckpointCache(tmp_path / "cache", max_bytes=1_000_000)
    hold = cache.fetch(at())
    weights = hold.fetched.path / "model.safetensors"
    assert weights.read_bytes() == (folder / "model.safetensors").read_bytes()
    assert hub.asked("/content/") == [], "nothing went by plain HTTP"
    assert 40_000 < hold.received < 60_000, "Xet storage compresses"
    blob = weights.resolve()
    assert blob.parent == cached.repository(REPO, cache.folder) / "blobs", "not in a shared store"
    cache.release(hold, measured=True)
    assert not blob.exists()


def test_files_are_on_the_disk_before_the_checkpoint_counts_as_there(
    hub: Hub, serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The library renames a file that has arrived, and leaves it to the system when it reaches the disk."""
    serve()
    reference = cached.repository(REPO, tmp_path / "home" / "hub") / "refs" / "step7"
    flushed: list[tuple[int, bool]] = []
    monkeypatch.setattr(os, "fsync", lambda file: flushed.append((os.fstat(file).st_ino, reference.exists())))
    path = checkpoints.fetch(at()).path
    assert sorted(flushed) == sorted((file.stat().st_ino, False) for file in path.iterdir())
    assert reference.exists()


def test_what_a_killed_download_left_is_removed_unless_it_lives(hub: Hub, serve, tmp_path: Path) -> None:
    source = serve()
    cache = tmp_path / "home" / "hub"
    blobs = cached.repository(REPO, cache) / "blobs"
    blobs.mkdir(parents=True)
    mine, theirs = hub.hashes(source / "model.safetensors")[0], hub.hashes(source / "tokenizer.json")[1]
    for left in (f"{mine}.0a1b2c3d.incomplete", f"{mine}.incomplete", f"{theirs}.0a1b2c3d.incomplete"):
        (blobs / left).write_bytes(b"half")
    lock = cached.library_lock(REPO, cache, theirs)
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        remove_partial(REPO, cache, theirs)
    assert len(list(blobs.iterdir())) == 3
    checkpoints.fetch(at())
    assert not list(blobs.glob("*.incomplete"))


def test_stop_ends_a_download_and_leaves_no_half_file(
    hub: Hub, serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)
    serve()
    hub.bytes_per_second = 5_000
    cache = CheckpointCache(tmp_path / "cache")
    threading.Timer(0.5, cache.stop.set).start()
    with fails(match=f"^tiny seed 0 step 7: {REPO} at step7: fetching stopped because the sweep is ending"):
        cache.fetch(at())
    assert not list(cache.folder.rglob("*.incomplete"))


def test_cache_that_cannot_be_locked_is_read(hub: Hub, serve, tmp_path: Path) -> None:
    serve()
    fetched = checkpoints.fetch(at())
    locks = tmp_path / "home" / "hub" / ".locks"
    shutil.rmtree(locks)
    locks.write_text("no folder can be made here")
    assert checkpoints.fetch(at()) == fetched
    with fails(match=r"cache.folder=.*: cannot be written or locked: .*; give a folder on a local disk"):
        serve(revision="step8")
        checkpoints.fetch(at(8))


def test_cache_that_cannot_be_locked_is_left_as_it_is(serve, tmp_path: Path) -> None:
    serve()
    cache = CheckpointCache(tmp_path / "home" / "hub", 1 << 30)
    cache.release(cache.fetch(at()))
    lock = tmp_path / "home" / "hub" / ".locks" / "tracker" / "lock"
    lock.unlink()
    lock.mkdir()
    assert cache.tidy() == 0


def test_listing_ends_at_ctrl_c_whatever_waits_behind_it(hub: Hub, serve) -> None:
    serve()
    hub.busy, hub.busy_path = [(429, 60)] * 500, "/revision/"
    code = (
        "import signal; from tracker.checkpoints import Labels, declared, look; "
        "signal.siginterrupt(signal.SIGINT, True); "  # as every command does
        f"repo, steps = {REPO!r}, range(40); "
        "heads = {f'step{step}': f'{step:040x}' for step in steps}; "
        "look(declared(repo, Labels('s', 'tiny'), steps), {repo: heads})"
    )
    source = str(Path(checkpoints.__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"HF_ENDPOINT": hub.url, "PYTHONPATH": source},
        stderr=subprocess.DEVNULL,
    )
    while not any("/revision/" in line.path for line in hub.log):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(20) != 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("status", "place"), [(503, "/revision/"), (429, "/revision/"), (503, "/content/")])
def test_busy_hub_is_asked_again(hub: Hub, serve, status: int, place: str) -> None:
    serve()
    hub.busy, hub.busy_path = [(status, 0)] * 2, place
    checkpoints.fetch(at())
    assert [line.status for line in hub.log if place in line.path] == [status, status, 200]


def test_hub_that_stays_busy(hub: Hub, serve) -> None:
    serve()
    hub.busy = [(503, 0)] * 9
    with fails(match=r"the hub does not answer \(HfHubHTTPError: .*503") as caught:
        checkpoints.fetch(at())
    assert len(hub.log) == 5
    assert "?" not in str(caught.value)
    hub.busy = [(429, 3600)]
    with fails(match="the hub does not answer"):
        discover_hub(REPO)
    assert len(hub.log) == 6, "a wait of an hour is not for us"


def test_other_faults_name_their_cause(hub: Hub, serve) -> None:
    serve()
    hub.busy = [(418, 0)]
    with fails(match=f"{REPO} at step7: could not be fetched .*418.*; run the same comm"):
        checkpoints.fetch(at())
    hub.nameless = True
    with fails(match=f"{REPO} at step7: the hub names no commit for it; check HF_ENDPOINT"):
        checkpoints.fetch(at())
    with fails(match="'../../x' is not a name that a Git branch can have"):
        checkpoints.fetch(Checkpoint(**{**vars(at()), "revision": "../../x"}))


def test_cause_behind_not_in_the_cache_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with fails(match=f"^m: {REPO} at step7: not in the cache, and HF_HUB_OFFLINE is set; unset it"):
        answers.ask(
            lambda: snapshot_download(REPO, revision="0" * 40, endpoint=hub.url),
            answers.Subject(REPO, "step7", "m"),
        )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux for a disk that is full")
def test_full_disk() -> None:
    def write() -> None:
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")

    with fails(match=f"^m: {REPO} at step7: the disk is full; free space, or set cache.folder to another d"):
        answers.ask(write, answers.Subject(REPO, "step7", "m"))


def test_logs_hold_no_signed_address(hub: Hub, serve, capfd: pytest.CaptureFixture[str]) -> None:
    serve()
    hub.cut = [100]
    checkpoints.fetch(at())
    assert len(hub.asked("/content/")) == 2
    assert "Signature" not in "".join(capfd.readouterr())


OFFLINE = """
from tracker import checkpoints
from tracker.errors import TrackerError
import os, sys
assert os.environ["DISABLE_SAFETENSORS_CONVERSION"] == "0", "what the user has set stays"
assert os.environ["HF_XET_CHUNK_CACHE_SIZE_BYTES"] == "0"
sys.exit("torch was imported") if "torch" in sys.modules else None
for one in checkpoints.discover_hub("lab/pythia-tiny"):
    fetched = checkpoints.fetch(one)
    print(one.revision, one.step, fetched.commit, fetched.path)
one, = checkpoints.declared("lab/pythia-tiny", checkpoints.Labels("s", "tiny"), [7])
print("declared", checkpoints.fetch(one).commit)
one, = checkpoints.declared("lab/pythia-tiny", checkpoints.Labels("s", "tiny"), [8])
try:
    checkpoints.fetch(one)
except TrackerError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("offline", ["1", ""])
def test_cached_commit_needs_no_network(hub: Hub, serve, tmp_path: Path, offline: str) -> None:
    serve()
    fetched = checkpoints.fetch(at())
    hub.log.clear()
    # A port where nobody listens, for the case that the library is not told to stay offline.
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": offline,
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DISABLE_SAFETENSORS_CONVERSION": "0",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", OFFLINE],
        env=environment,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found, named, unreached = done.stdout.splitlines()
    assert found == f"step7 7 {fetched.commit} {fetched.path}"
    assert named == f"declared {fetched.commit}"
    said = "not in the cache, and HF_HUB_OFFLINE" if offline else "the hub does not answer (ConnectError"
    assert unreached.startswith(f"Unreachable tiny seed 0 step 8: {REPO} at step8: {said}")
    assert hub.log == []


def test_cache_with_a_hole_is_not_taken_for_whole(hub: Hub, serve) -> None:
    serve()
    first = checkpoints.fetch(at())
    (first.path / "tokenizer.json").unlink()
    hub.busy = [(503, 0)] * 5
    with fails(match="the hub does not answer"):
        checkpoints.fetch(at())
    assert checkpoints.fetch(at(commit=first.commit)).path == first.path
    assert (first.path / "tokenizer.json").is_file()


def test_cache_of_another_program_serves_offline(hub: Hub, serve) -> None:
    from huggingface_hub import hf_hub_download

    serve()
    for name in ("config.json", "model.safetensors"):
        hf_hub_download(REPO, name, revision="step7", cache_dir=cached.cache_folder(None), endpoint=hub.url)
    hub.busy = [(503, 0)] * 5
    assert checkpoints.fetch(at()).commit == hub.commit(hub.root / REPO / "step7")
