"""The embedded suite's recipe, text and batches: everything that needs no training."""

import dataclasses
import hashlib
import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tracker
from tracker.atomic import clear_leftovers, save_file, save_folder
from tracker.errors import RequestError, TrackerError
from tracker.nano import DEFAULT_MODELS, SIZES, NanoRecipe, checkpoint_steps, suite_checkpoints
from tracker.nano.batches import Batches
from tracker.nano.corpus import LEFT_OUT, documents, prepare, text_digest
from tracker.nano.recipe import Size, learning_rate, size_of

SMALL = NanoRecipe(train_steps=8, batch=2, tokens=16, vocab=300, text_bytes=200_000)


def finds_tracker() -> dict[str, str]:
    """An environment in which another process imports the very package under test."""
    return os.environ | {"PYTHONPATH": str(Path(tracker.__file__).parents[1])}


def test_steps_double_to_512_then_follow_every_hundred():
    assert checkpoint_steps(NanoRecipe()) == (0, *(2**power for power in range(10)), 600, 700, 800, 900, 1000)


@pytest.mark.parametrize(
    ("recipe", "tail"),
    [
        (NanoRecipe(train_steps=4000), [512, 750, 1000, 1250]),
        (NanoRecipe(train_steps=1000, interval=200), [512, 600, 800, 1000]),
        (NanoRecipe(train_steps=720), [512, 600, 700, 720]),
    ],
)
def test_interval_rule_and_last_step(recipe, tail):
    steps = checkpoint_steps(recipe)
    start = steps.index(512)
    assert list(steps[start : start + 4]) == tail
    assert steps[-1] == recipe.train_steps
    assert checkpoint_steps(NanoRecipe(train_steps=6)) == (0, 1, 2, 4, 6)


def test_rate_starts_at_zero_peaks_after_warmup_and_ends_at_a_tenth():
    recipe, size = NanoRecipe(), Size(width=64, layers=4, heads=4)
    rates = [learning_rate(recipe, size, step) for step in range(recipe.train_steps + 1)]
    assert rates[0] == 0
    assert rates[5] == pytest.approx(recipe.peak_learning_rate / 2)
    assert rates[10] == max(rates) == pytest.approx(recipe.peak_learning_rate)
    assert rates[-1] == pytest.approx(recipe.peak_learning_rate / 10)
    assert all(before > after for before, after in itertools.pairwise(rates[10:]))
    assert rates[500] == pytest.approx(4 * learning_rate(recipe, Size(256, 4, 4), 500))


@pytest.mark.parametrize("name", SIZES)
def test_sizes_carry_their_names_and_sixteen_dimensions_a_head(name):
    size = SIZES[name]
    millions, _, heads = name.partition("_")
    assert size.heads == (int(heads[:-1]) if heads else size.width // 16)
    assert size.width % (2 * size.heads) == 0
    assert size.non_embedding == pytest.approx(float(millions[:-1]) * 1e6, rel=0.2)


def test_the_axes_of_size_separate():
    sizes = [size.non_embedding for size in SIZES.values()]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) >= 8
    assert (sizes[0], sizes[-1]) == (9_872, 3_159_552)
    pairs = list(itertools.combinations(SIZES.values(), 2))
    for same, other in (
        ("non_embedding", "heads"),
        ("width", "layers"),
        ("layers", "width"),
        ("heads", "width"),
    ):
        apart = [(a, b) for a, b in pairs if getattr(a, same) == getattr(b, same)]
        assert any(getattr(a, other) != getattr(b, other) for a, b in apart), (same, other)


def test_the_default_models_are_those_of_earlier_versions():
    assert DEFAULT_MODELS == ("0.05m", "0.2m", "0.8m")
    assert [SIZES[name] for name in DEFAULT_MODELS] == [Size(48, 2, 3), Size(64, 4, 4), Size(128, 4, 8)]


def test_a_close_look_adds_checkpoints():
    usual, close = NanoRecipe(train_steps=128), NanoRecipe(train_steps=128, dense_steps=(100, 130, 10))
    assert sorted(set(checkpoint_steps(close)) - set(checkpoint_steps(usual))) == [100, 110, 120]
    with pytest.raises(RequestError, match=r"suite\.dense_steps"):
        NanoRecipe(dense_steps=(9, 1, 2))


def test_digest_follows_every_field():
    base = NanoRecipe()
    changed = {
        "train_steps": 999,
        "batch": 8,
        "tokens": 64,
        "vocab": 512,
        "peak_learning_rate": 1e-3,
        "warmup_share": 0.02,
        "floor_share": 0.2,
        "betas": (0.9, 0.99),
        "epsilon": 1e-7,
        "weight_decay": 0.0,
        "clip_norm": 0.5,
        "rotary_pct": 0.5,
        "repeat_share": 0.0,
        "text_bytes": 10**6,
        "interval": 50,
        "dense_steps": (1, 9, 2),
    }
    assert set(changed) == {field.name for field in dataclasses.fields(NanoRecipe)}
    digests = {dataclasses.replace(base, **{name: value}).digest for name, value in changed.items()}
    assert len(digests | {base.digest}) == len(changed) + 1
    # Names of suites that earlier versions trained, when the field was called ``dense``.
    assert (base.digest, NanoRecipe(dense_steps=(1, 9, 2)).digest) == ("d826027b", "0a134c6f")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train_steps": 0}, r"suite\.train_steps=0: invalid value; expected whole numbers from 1"),
        ({"batch": 0}, r"suite\.batch=0: invalid value; expected whole numbers from 1"),
        ({"interval": 0}, r"suite\.interval=0: invalid value; expected whole numbers from 1"),
        ({"tokens": 2}, r"suite\.tokens=2: invalid value; expected whole numbers from 4"),
        ({"vocab": 256}, r"suite\.vocab=256: invalid value; expected 257 \(all bytes"),
        ({"vocab": 70_000}, r"suite\.vocab=70000: invalid value; expected 257 \(all bytes"),
        ({"repeat_share": 1.5}, r"suite\.repeat_share=1\.5: invalid value; expected shares from 0 to 1"),
        ({"peak_learning_rate": 0.0}, r"suite\.peak_learning_rate=0\.0: invalid value; expected numbers"),
    ],
)
def test_meaningless_fields_are_refused(fields, message):
    with pytest.raises(RequestError, match=message):
        NanoRecipe(**fields)


def test_unknown_size_lists_the_known_ones():
    message = rf"suite\.models=70m: invalid value; expected one of {', '.join(SIZES)}$"
    with pytest.raises(RequestError, match=message):
        size_of("70m")


def test_text_is_the_same_every_time_and_without_tests_or_installed_packages():
    first, second = documents(2_000_000), documents(2_000_000)
    assert text_digest(first) == text_digest(second)
    (name, text), *rest = first
    for changed in ((name, text + b"x"), (name + "x", text)):
        assert text_digest([changed, *rest]) != text_digest(first)
    assert 1_000_000 < sum(len(text) for _, text in first) <= 2_000_000
    assert not [name for name, _ in first if LEFT_OUT & set(Path(name).parts)]
    assert [name for name, _ in first] != sorted(name for name, _ in first)


def test_text_contains_library_sources_and_help_topics():
    names = {name for name, _ in documents(12_000_000)}
    assert {"argparse.py", "json/decoder.py"} <= names
    assert any(name.startswith("topics/") for name in names)


def test_text_is_not_the_probe():
    probe = (Path(tracker.__file__).parent / "measurement" / "default_probe.txt").read_bytes()
    sentence = probe[:60]
    assert not [name for name, text in documents(12_000_000) if sentence in text]


def test_stripped_library_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    message = r"too little to read: 0 bytes of Python sources below .*as \.py files"
    with pytest.raises(TrackerError, match=message):
        documents(12_000_000)


def test_tokenizer_and_ids_are_reproduced_in_another_process(tmp_path):
    corpus = prepare(SMALL, documents(SMALL.text_bytes), tmp_path / "here" / "text")
    program = (
        "import sys; from pathlib import Path; from tracker.nano import NanoRecipe\n"
        "from tracker.nano.corpus import documents, prepare\n"
        "recipe = NanoRecipe(train_steps=8, batch=2, tokens=16, vocab=300, text_bytes=200_000)\n"
        "prepare(recipe, documents(recipe.text_bytes), Path(sys.argv[1]))\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "there" / "text")], check=True, env=finds_tracker()
    )
    for name in ("tokenizer.json", "tokenizer_config.json", "ids.npy"):
        here, there = (tmp_path / side / "text" / name for side in ("here", "there"))
        assert hashlib.sha256(here.read_bytes()).digest() == hashlib.sha256(there.read_bytes()).digest(), name
    ids = corpus.ids()
    assert ids.dtype == np.uint16
    assert ids.max() < SMALL.vocab


def test_ids_decode_to_the_documents(tmp_path):
    from transformers import AutoTokenizer

    found = documents(SMALL.text_bytes)
    corpus = prepare(SMALL, found, tmp_path / "text")
    tokenizer = AutoTokenizer.from_pretrained(corpus.folder)
    ids = corpus.ids()
    ends = np.flatnonzero(ids == tokenizer.eos_token_id)
    assert len(ends) == len(found)
    assert tokenizer.decode(ids[: ends[0]].tolist()) == found[0][1].decode()


def _batches(seed=0, share=0.25, size=4000):
    recipe = dataclasses.replace(SMALL, repeat_share=share, batch=8)
    return Batches(recipe, np.arange(size, dtype=np.uint16), seed)


def test_an_epoch_reads_every_sequence_once_and_never_the_held_out():
    batches = _batches(share=0.0)
    count = (4000 - 1) // 16
    kept = count - round(count * 0.02)
    starts = np.concatenate([batches.training(step)[:, 0] for step in range(2 * kept // 8 + 1)])
    assert sorted(starts[:kept]) == [16 * i for i in range(kept)]
    assert sorted(starts[kept : 2 * kept]) == [16 * i for i in range(kept)]
    assert not np.array_equal(starts[:kept], starts[kept : 2 * kept])
    assert batches.held_out()[:, 0].min() >= 16 * kept


def test_batches_depend_on_seed_and_step_only():
    fresh, used = _batches(), _batches()
    for step in range(5):
        used.training(step)
    assert np.array_equal(fresh.training(40), used.training(40))
    assert not np.array_equal(_batches(seed=1).training(40), fresh.training(40))


def test_targets_of_plain_sequences_run_on():
    ids = _batches(share=0.0).training(3)
    assert ids.shape == (8, 17)
    assert (np.diff(ids, axis=1) == 1).all()


def test_a_quarter_of_the_sequences_repeat_their_first_half():
    batches = _batches()
    ids = np.concatenate([batches.training(step) for step in range(60)])
    repeated = (ids[:, 8:] == ids[:, :9]).all(axis=1)
    assert abs(repeated.mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / len(ids))
    assert (np.diff(ids[~repeated], axis=1) == 1).all()


def test_suite_is_known_without_training_and_without_torch(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from tracker.nano import NanoRecipe, suite_checkpoints\n"
        "found = suite_checkpoints(NanoRecipe(), Path(sys.argv[1]), ['0.05m', '0.8m'], 2)\n"
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules), sorted(sys.modules)\n"
        "print(len(found))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        env=finds_tracker(),
    )
    assert done.stdout.split() == [str(2 * 2 * 16)]
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_records(tmp_path):
    found = suite_checkpoints(SMALL, tmp_path, ["0.05m"], 2)
    text = text_digest(documents(SMALL.text_bytes))
    assert [(one.seed, one.step) for one in found] == [(s, k) for s in (0, 1) for k in (0, 1, 2, 4, 8)]
    last = found[-1]
    assert last.location == str(tmp_path / f"{SMALL.digest}-{text[:8]}" / "0.05m" / "seed-1")
    assert (last.suite, last.kind, last.revision, last.tokens_seen) == ("nano", "folder", "step8", 8 * 2 * 16)
    assert last.identity == f"nano:{SMALL.digest}:{text}:0.05m:1"
    assert last.exists is None


@pytest.mark.parametrize(
    ("models", "seeds", "message"),
    [
        (["1b"], 1, r"suite\.models=1b: invalid value; expected one of 0\.01m"),
        ([], 1, r"suite\.models=\[\]: nothing to train; name at least one model"),
        (["3m", "3m"], 1, r"suite\.models=\['3m', '3m'\]: a model is named twice; name each once"),
        (["3m"], 0, r"suite\.seeds=0: invalid value; expected whole numbers from 1"),
    ],
)
def test_wrong_requests_name_the_field(tmp_path, models, seeds, message):
    with pytest.raises(RequestError, match=message):
        suite_checkpoints(SMALL, tmp_path, models, seeds)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "state"
    path.write_text("old")

    def fails(new):
        new.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_file(path, fails)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_a_folder_that_cannot_be_filled_never_appears(tmp_path):
    def fails(new):
        (new / "half").touch()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_folder(tmp_path / "step1", fails)
    assert list(tmp_path.iterdir()) == []


def test_a_complete_folder_is_kept(tmp_path):
    save_folder(tmp_path / "step1", lambda new: (new / "a").touch())
    save_folder(tmp_path / "step1", lambda new: (new / "b").touch())
    assert [file.name for file in (tmp_path / "step1").iterdir()] == ["a"]


def test_leftovers_of_a_killed_process_are_cleared_and_nothing_else(tmp_path):
    (tmp_path / ".step4.123").mkdir()
    (tmp_path / ".resume.pt.99").touch()
    for kept in (".lock", "training.json", "resume.pt"):
        (tmp_path / kept).touch()
    clear_leftovers(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", "resume.pt", "training.json"]
