"""Without the loss, a small model is fetched without its unembedding: what arrives, what is made of it."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch
from huggingface_hub import close_session, scan_cache_dir
from loopback_hub import Hub, loopback_hub, use_hub
from polars.testing import assert_frame_equal
from safetensors.torch import load_file, save_file
from saved_models import OLD_CONFIG
from suite_material import VOLATILE
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from tracker import checkpoints, open_store
from tracker.checkpoints import CheckpointCache, Labels, cached, declared, files, headers, inspect, parts
from tracker.cli import run
from tracker.errors import CheckpointError, RequestError
from tracker.models.loading import load_model
from tracker.models.reuse import ReusedModel
from tracker.records import Checkpoint

REPO = "lab/pythia-tiny"
CONFIG = OLD_CONFIG | {"vocab_size": 8192, "hidden_size": 64, "max_position_embeddings": 512}
HEAD = 8192 * 64 * 2
MASKS = 2 * 512 * 512
PROBE = ("probe.ids=ids.json", "probe.n=48", "probe.sequences=2", "sink=none")
SWEEP = ("suite=hub", f"suite.repo={REPO}", *PROBE)
WITHOUT = (*SWEEP, "probe.loss=false", "engine=inline")


def save(folder: Path, seed: int, **config: object) -> Path:
    """A float16 model as Pythia's branches hold it: unembedding first, a causal mask of each layer last."""
    torch.manual_seed(seed)
    fields = {key: value for key, value in (CONFIG | config).items() if key != "torch_dtype"}
    folder.mkdir(parents=True, exist_ok=True)
    GPTNeoXForCausalLM(GPTNeoXConfig(**fields)).half().save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    mask = torch.ones(1, 1, 512, 512, dtype=torch.bool).tril()
    masks = {f"gpt_neox.layers.{layer}.attention.bias": mask.clone() for layer in range(2)}
    save_file(weights | masks, folder / "model.safetensors", {"format": "pt"})
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    root = tmp_path_factory.mktemp("saved")
    return {step: save(root / str(step), seed=step) for step in (1, 2)}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: dict[int, Path]) -> Iterator[Hub]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tracker"])
    Path("ids.json").write_text(json.dumps([list(range(48))] * 2), encoding="utf-8")
    with loopback_hub(tmp_path / "hub") as running:
        use_hub(monkeypatch, running, tmp_path / "home")
        for step, folder in saved.items():
            shutil.copytree(folder, running.root / REPO / f"step{step}")
        yield running
    close_session()


def at(step: int = 1) -> Checkpoint:
    return declared(REPO, Labels("hub", "pythia-tiny"), [step])[0]


def headless(cache: str = "cache", **options: int) -> CheckpointCache:
    return CheckpointCache(Path(cache).absolute(), head=False, **options)


def weights(hub: Hub) -> int:
    """Bytes of weight files that were served."""
    return sum(line.sent for line in hub.log if "/content/" in line.path)


def test_only_what_is_needed_arrives_as_a_file_of_its_own(hub: Hub, saved) -> None:
    cache = headless()
    hold = cache.fetch(at())
    whole = saved[1] / "model.safetensors"
    size = whole.stat().st_size
    assert weights(hub) < size - HEAD - MASKS + parts.FIRST + 1
    assert weights(hub) < 0.55 * size
    file = hold.fetched.path / "model.safetensors"
    kept, every = load_file(file), load_file(whole)
    left_out = every.keys() - kept.keys()
    assert left_out == {"embed_out.weight", *(f"gpt_neox.layers.{i}.attention.bias" for i in (0, 1))}
    assert all(torch.equal(kept[name], every[name]) for name in kept)
    assert headers.read_header(file).absent == {"embed_out.weight": (8192, 64)}
    config = (saved[1] / "config.json").stat().st_size
    assert hold.received == weights(hub) - parts.FIRST + config, "the header came before, to plan the rest"
    assert hold.fetched.commit == hub.commit(hub.root / REPO / "step1")


def test_nobody_takes_it_for_the_whole_file(hub: Hub, saved) -> None:
    cache = headless()
    cache.release(cache.fetch(at()))
    assert not list(cache.folder.glob("models--*"))
    assert not scan_cache_dir(cache.folder).repos
    assert not scan_cache_dir(cache.folder).warnings
    hub.log.clear()
    with_loss = CheckpointCache(cache.folder)
    hold = with_loss.fetch(at())
    assert weights(hub) == (saved[1] / "model.safetensors").stat().st_size
    assert load_file(hold.fetched.path / "model.safetensors").keys() >= {"embed_out.weight"}
    assert not list(cache.folder.rglob("*.part")), "the whole file serves both"
    hub.log.clear()
    assert cache.fetch(at()).fetched.path == hold.fetched.path
    assert weights(hub) == 0


HOSTILE = ("ignored", "refused", "short", "shifted", "unlike", "moved", "looping")


@pytest.mark.parametrize("answer", HOSTILE)
def test_whatever_ranges_are_answered_the_weights_are_right_or_one_line_says_why(
    hub: Hub, saved, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.ranges = answer
    cache = headless(max_bytes=10_000_000)
    if answer == "looping":
        with pytest.raises(
            CheckpointError, match=r"^pythia-tiny seed 0 step 1: .*TooManyRedirects"
        ) as caught:
            cache.fetch(at())
        assert "\n" not in str(caught.value)
        return
    hold = cache.fetch(at())
    found, every = (
        load_file(hold.fetched.path / "model.safetensors"),
        load_file(saved[1] / "model.safetensors"),
    )
    assert ("embed_out.weight" in found) == (answer != "moved")
    assert all(torch.equal(found[name], every[name]) for name in found)
    cache.release(hold, measured=True)
    assert not [path for path in cache.folder.rglob("*") if path.is_file() and path.stat().st_size > 1000]


def test_a_file_that_changes_under_its_name_is_not_mixed(hub: Hub, saved) -> None:
    """The announced hash is the file's own; a hub that serves another file for the same name is refused."""
    inspected = inspect(at())
    shutil.copy(saved[2] / "model.safetensors", hub.root / REPO / "step1" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"the repository has no revision|arrived altered"):
        headless().fetch(at(), inspected)


def test_a_broken_connection_is_taken_up_where_it_broke(hub: Hub, saved) -> None:
    size = (saved[1] / "model.safetensors").stat().st_size
    hub.cut = [parts.FIRST, 300_000]
    path = headless().fetch(at()).fetched.path
    assert weights(hub) < size - HEAD - MASKS + parts.FIRST + (1 << 16)
    assert len(hub.asked("/content/")) == 3
    assert torch.equal(
        load_file(path / "model.safetensors")["gpt_neox.embed_in.weight"],
        load_file(saved[1] / "model.safetensors")["gpt_neox.embed_in.weight"],
    )


def test_long_ranges_are_cut_and_small_gaps_are_fetched_along(hub: Hub, saved, monkeypatch) -> None:
    monkeypatch.setattr(parts, "PIECE", 100_001)
    path = headless().fetch(at()).fetched.path
    assert len(hub.asked("/content/")) > 10
    kept, every = load_file(path / "model.safetensors"), load_file(saved[1] / "model.safetensors")
    assert all(torch.equal(kept[name], every[name]) for name in kept)
    part = parts.Part(inspect(at()).files[0], b"", ((0, 10), (20, 30), (10**8, 10**8 + 5)), "")
    monkeypatch.setattr(parts, "PIECE", 32 << 20)
    assert part.pieces == [(0, 30), (10**8, 10**8 + 5)]


def test_an_unembedding_in_the_middle_and_a_header_longer_than_the_first_range(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "GAP", 1000)
    monkeypatch.setattr(parts, "FIRST", 500)
    folder = hub.root / REPO / "step3"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"tie_word_embeddings": False}))
    names = ("a.embed_tokens.weight", "b.weight", "lm_head.weight", "m.weight", "z.weight")
    shapes = ((512, 512), (3, 7), (512, 512), (1,), (100, 100))
    tensors = {name: torch.randn(shape) for name, shape in zip(names, shapes, strict=True)}
    save_file(tensors, folder / "model.safetensors", {"format": "pt", "note": "x" * 900})
    hub.log.clear()
    found = headless().fetch(at(3)).fetched.path / "model.safetensors"
    kept = load_file(found)
    assert kept.keys() == tensors.keys() - {"lm_head.weight"}
    assert all(torch.equal(kept[name], tensors[name]) for name in kept)
    assert len(hub.asked("/content/")) == 4, "two for the header, one on each side of the unembedding"
    assert weights(hub) < 1_100_000
    assert files.whole(found.parent, "m") == [found]


def test_a_part_is_not_measured_with_the_loss(hub: Hub, capsys) -> None:
    path = headless().fetch(at()).fetched.path
    shutil.copytree(path, "runs/step1")
    request = ("suite=folder", "suite.path=runs", *PROBE, "engine=inline")
    assert run(["sweep", *request]) == 1
    assert "fetched without the unembedding, which the loss needs" in capsys.readouterr().out
    assert run(["sweep", *request, "probe.loss=false"]) == 0


BAD_HEADERS = {
    "no JSON": b"{" * 40,
    "a list": b"[1, 2]",
    "offsets that are none": b'{"embed_out.weight":{"dtype":"F16","shape":[1],"data_offsets":[0,2.0]}}',
    "a dtype that is none": b'{"embed_out.weight":{"dtype":"Q","shape":[1],"data_offsets":[0,2]}}',
    "a gap": b'{"embed_out.weight":{"dtype":"F16","shape":[1],"data_offsets":[4,6]}}',
    "metadata that is none": b'{"__metadata__":3,"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}',
}


@pytest.mark.parametrize("header", BAD_HEADERS)
def test_a_header_that_is_none_is_one_line(hub: Hub, header: str) -> None:
    text = BAD_HEADERS[header]
    file = hub.root / REPO / "step1" / "model.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(1 << 20))
    with pytest.raises(CheckpointError, match=r"^pythia-tiny seed 0 step 1: ") as caught:
        headless().fetch(at())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("why", "config"),
    [
        ("tied", {"tie_word_embeddings": True}),
        ("unsaid", {}),
        ("little saved", {"intermediate_size": 80_000}),
    ],
)
def test_what_saves_little_or_is_tied_is_fetched_whole(hub: Hub, tmp_path: Path, why: str, config) -> None:
    folder = save(hub.root / REPO / "step3", seed=3, **config)
    if why == "unsaid":
        fields = {key: value for key, value in CONFIG.items() if key != "tie_word_embeddings"}
        (folder / "config.json").write_text(json.dumps(fields))
    whole = (folder / "model.safetensors").read_bytes()
    hub.log.clear()
    fetched = headless().fetch(at(3)).fetched.path
    assert (fetched / "model.safetensors").read_bytes() == whole
    assert weights(hub) <= len(whole) + parts.FIRST


def test_a_bounded_cache_counts_it_and_removes_it(hub: Hub) -> None:
    bound = 1_400_000
    cache = headless(max_bytes=bound)
    first = cache.fetch(at())
    assert cache.claims.bytes_held(first.claim) < bound
    cache.release(first, measured=True)
    assert not [path for path in cache.folder.rglob("*") if path.suffix == ".part"]
    second = cache.fetch(at(2))
    cache.release(second)
    third = cache.fetch(at(1))
    assert len([p for p in cache.folder.rglob("*.part") if p.is_file()]) == 1, "the idle one made room"
    cache.release(third)
    assert cache.tidy() == 1
    left = {path.name for path in cache.folder.rglob("*") if path.is_file()}
    assert left <= {"lock", "CACHEDIR.TAG"}
    with pytest.raises(CheckpointError, match=r"cache\.max_gb=0\.0005 is less than it takes"):
        headless(max_bytes=500_000).fetch(at())


def test_offline_and_pinned(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = headless()
    commit = cache.fetch(at()).fetched.commit
    hub.log.clear()
    pinned = Checkpoint(**{**vars(at()), "commit": commit})
    assert cache.fetch(pinned).fetched.commit == commit
    assert hub.log == []
    hub.busy = [(503, 0)] * 5
    assert cache.fetch(at()).fetched.commit == commit
    hub.busy = [(503, 0)] * 5
    with pytest.raises(CheckpointError, match="the hub does not answer"):
        CheckpointCache(cache.folder).fetch(at())


def test_stop_ends_it_and_leaves_no_half_file(hub: Hub) -> None:
    hub.bytes_per_second = 300_000
    cache = headless()
    timer = threading.Timer(1.5, cache.stop.set)
    timer.start()
    with pytest.raises(CheckpointError, match="fetching stopped because the sweep is ending"):
        cache.fetch(at())
    assert not list(cache.folder.rglob("*.incomplete"))
    assert not list(cache.folder.rglob("*.part"))


KILLED = """
import sys
from pathlib import Path
from tracker.checkpoints import CheckpointCache, Labels, declared
cache = CheckpointCache(Path("cache").absolute(), head=False)
cache.fetch(declared("lab/pythia-tiny", Labels("hub", "pythia-tiny"), [1])[0])
"""


def test_after_a_kill_it_starts_over(hub: Hub, saved, tmp_path: Path) -> None:
    hub.bytes_per_second = 400_000
    source = str(Path(checkpoints.__file__).parents[2])
    environment = os.environ | {"HF_ENDPOINT": hub.url, "PYTHONPATH": source}
    process = subprocess.Popen([sys.executable, "-c", KILLED], env=environment, cwd=tmp_path)
    while not list(tmp_path.glob("cache/.locks/tracker/parts/*/blobs/*.incomplete")):
        assert process.poll() is None
    process.kill()
    process.wait()
    hub.bytes_per_second = None
    path = headless().fetch(at()).fetched.path
    assert not list(tmp_path.rglob("*.incomplete"))
    assert torch.equal(
        load_file(path / "model.safetensors")["gpt_neox.embed_in.weight"],
        load_file(saved[1] / "model.safetensors")["gpt_neox.embed_in.weight"],
    )


def test_weights_in_the_model_are_those_of_the_whole_file(hub: Hub, saved) -> None:
    part, second = (headless().fetch(at(step)).fetched.path for step in (1, 2))
    model, whole = load_model(part), load_model(saved[1])
    own = dict(model.named_parameters())
    for name, parameter in whole.named_parameters():
        assert own[name].shape == parameter.shape
        assert name == "lm_head.weight" or torch.equal(own[name], parameter)
    assert own["lm_head.weight"].untyped_storage().nbytes() == 4, "no memory for what is not there"
    live = ReusedModel()
    first = live.load(part)
    again = live.load(second)
    assert again is first, "the module is used again"
    wanted = load_model(saved[2]).gpt_neox.state_dict()  # pyright: ignore[reportAttributeAccessIssue]
    found = again.gpt_neox.state_dict()  # pyright: ignore[reportAttributeAccessIssue]
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    last = live.load(saved[1])
    assert torch.equal(last.state_dict()["lm_head.weight"], whole.state_dict()["lm_head.weight"])


def rows(store: str, table: str) -> pl.DataFrame:
    found = getattr(open_store(store), table)().sort("step")
    return found.drop([name for name in found.columns if name in VOLATILE])


def test_a_sweep_without_the_loss_measures_the_same_to_the_bit(hub: Hub, capsys) -> None:
    assert run(["plan", *WITHOUT, "cache.folder=c", "store=part"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "to fetch: ~2.82 MB of 5.45 MB (without the loss no unembedding is needed)" in said
    hub.log.clear()
    assert run(["sweep", *WITHOUT, "cache.folder=c", "store=part", "cache.max_gb=1"]) == 0
    fetched = weights(hub)
    assert run(["sweep", *WITHOUT, "cache.folder=c", "store=blocks", "engine.stream=always"]) == 0
    hub.ranges = "ignored"
    assert run(["sweep", *WITHOUT, "cache.folder=c2", "store=whole"]) == 0
    assert fetched < 0.55 * 2 * (hub.root / REPO / "step1" / "model.safetensors").stat().st_size
    for table in ("heads", "layers", "sequences", "checkpoints"):
        assert_frame_equal(rows("part", table), rows("whole", table), check_exact=True)
        assert_frame_equal(rows("part", table), rows("blocks", table), check_exact=True)
    one = rows("part", "checkpoints")
    assert one["status"].to_list() == ["ok", "ok"]
    assert one["reason"].to_list() == [None, None]
    assert one["loss"].is_null().all()


def test_a_later_sweep_with_the_loss_fetches_and_measures_the_whole(hub: Hub, capsys) -> None:
    assert run(["sweep", *WITHOUT, "cache.folder=c"]) == 0
    hub.log.clear()
    assert run(["plan", *SWEEP, "cache.folder=c"]) == 0
    assert "0 measured, 2 to measure" in " ".join(capsys.readouterr().out.split())
    assert run(["sweep", *SWEEP, "engine=inline", "cache.folder=c"]) == 0
    with pytest.raises(RequestError, match="of several probes") as caught:
        open_store("tracker-store")
    probes = str(caught.value).partition(" with ")[2].split(", ")
    one, other = (open_store("tracker-store", probe=probe) for probe in probes)
    keys = ("step", "layer", "head")
    assert_frame_equal(
        one.heads().sort(keys).drop("probe"), other.heads().sort(keys).drop("probe"), check_exact=True
    )
    assert {store.checkpoints()["loss"].drop_nulls().len() for store in (one, other)} == {0, 2}
    assert weights(hub) >= 2 * 2_700_000
    assert cached.find(at(), Path("c")) is not None


def test_the_audit_reads_what_is_there_of_it(hub: Hub, capsys) -> None:
    folder = hub.root / REPO / "step2"
    broken = load_file(folder / "model.safetensors")
    broken["gpt_neox.embed_in.weight"][5, 5] = torch.nan
    save_file(broken, folder / "model.safetensors", {"format": "pt"})
    assert run(["audit", *WITHOUT[:2], "cache.folder=c"]) == 0
    capsys.readouterr()
    assert run(["sweep", *WITHOUT, "cache.folder=c"]) == 1
    assert "weights hold NaN or infinite values in gpt_neox.embed_in.weight" in capsys.readouterr().out
    assert run(["audit", *WITHOUT[:2], "cache.folder=c"]) == 1
    assert "gpt_neox.embed_in.weight: 1 of 524288 values are NaN" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine", [("engine=local", "engine.workers=2"), ("engine=dask", "engine.workers=1")]
)
def test_workers_in_other_processes_fetch_no_more(hub: Hub, engine: tuple[str, ...], capsys) -> None:
    assert run(["sweep", *SWEEP, "probe.loss=false", *engine, "cache.folder=c", "cache.max_gb=1"]) == 0
    assert open_store("tracker-store").checkpoints()["status"].to_list() == ["ok", "ok"]
    assert weights(hub) < 0.55 * 2 * (hub.root / REPO / "step1" / "model.safetensors").stat().st_size
    assert not [path for path in Path("c").rglob("*.part") if path.is_file()], "removed when measured"
