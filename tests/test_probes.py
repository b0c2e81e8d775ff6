import hashlib
import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from loopback_hub import loopback_hub, use_hub
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tracker.errors import CheckpointError, RequestError
from tracker.measurement.probe import (
    DEFAULT_TEXT,
    encode_probe,
    load_tokenizer,
    probe_spec,
    read_text,
    tokenizer_digest,
)
from tracker.records import ProbeSource, ProbeSpec, digest


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        [DEFAULT_TEXT.read_text()[:50_000]],
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>")


def spec_of(source: ProbeSource, n: int = 32, number: int = 4, **options):
    return probe_spec(source, name="test", n=n, number=number, **options)


def test_the_text_is_encoded_once_and_cut(tokenizer: PreTrainedTokenizerFast, tmp_path: Path):
    (tmp_path / "a.txt").write_text("one two three four five " * 100)
    source = ProbeSource(text=str(tmp_path / "a.txt"))
    tokens = encode_probe(spec_of(source), source, tokenizer, vocabulary=400)
    stream = tokenizer(read_text(source), add_special_tokens=False)["input_ids"]
    np.testing.assert_array_equal(tokens.ids.ravel(), stream[: 32 * 4])
    with_bos = encode_probe(spec_of(source, bos=True), source, tokenizer, vocabulary=400)
    assert (with_bos.ids[:, 0] == tokenizer.bos_token_id).all()
    np.testing.assert_array_equal(with_bos.ids[:, 1:].ravel(), stream[: 31 * 4])
    assert with_bos.digest != tokens.digest


def test_prefix_blocks_are_written_twice_seeded_and_never_special(tokenizer: PreTrainedTokenizerFast):
    source = ProbeSource()
    first = encode_probe(spec_of(source), source, tokenizer, vocabulary=400, max_positions=60)
    assert first.prefix_ids.shape == (4, 60)
    np.testing.assert_array_equal(first.prefix_ids[:, :30], first.prefix_ids[:, 30:])
    assert tokenizer.bos_token_id not in first.prefix_ids
    again = encode_probe(spec_of(source), source, tokenizer, vocabulary=400, max_positions=60)
    np.testing.assert_array_equal(first.prefix_ids, again.prefix_ids)
    other = encode_probe(spec_of(source, seed=1), source, tokenizer, vocabulary=400, max_positions=60)
    assert (first.prefix_ids != other.prefix_ids).any()
    assert encode_probe(spec_of(source), source, tokenizer, vocabulary=400).prefix_ids.shape == (4, 100)


def test_the_default_text_is_long_enough_for_500_sequences_of_pythia(real: Path):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(real / "gpt_neox_tokenizer" / "tokenizer.json"))
    source = ProbeSource()
    tokens = encode_probe(spec_of(source, 96, 500), source, tokenizer, vocabulary=50304)
    assert tokens.ids.shape == (500, 96)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_documents_are_joined(tmp_path: Path, kind: str):
    path = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps({"body": text}) for text in ("one", "two")))
    else:
        pl.DataFrame({"body": ["one", "two"]}).write_parquet(path)
    assert read_text(ProbeSource(text=str(path), field="body")) == "one\n\ntwo"


@pytest.mark.parametrize("kind", ["npy", "json"])
def test_ids_are_taken_as_they_are(tmp_path: Path, kind: str):
    ids = np.arange(5 * 32).reshape(5, 32)
    path = tmp_path / f"ids.{kind}"
    np.save(path, ids) if kind == "npy" else path.write_text(json.dumps(ids.tolist()))
    source = ProbeSource(ids=str(path))
    np.testing.assert_array_equal(encode_probe(spec_of(source), source, None, vocabulary=200).ids, ids[:4])


def test_what_differs_in_text_or_cut_differs_in_the_label(tmp_path: Path):
    (tmp_path / "a.txt").write_text("a")
    plain = spec_of(ProbeSource())
    others = [
        spec_of(ProbeSource(text=str(tmp_path / "a.txt"))),
        spec_of(ProbeSource(), n=48),
        spec_of(ProbeSource(), bos=True),
        spec_of(ProbeSource(dataset="org/name", file="a.txt")),
    ]
    assert len({plain.label, *(spec.label for spec in others)}) == 5
    assert plain.label == spec_of(ProbeSource()).label


def test_whatever_decides_the_token_ids_belongs_to_the_key(tmp_path: Path):
    """Every field of a probe and its source is walked: a change of it changes what keys are made of."""
    for name, text in (("a.txt", "one"), ("b.txt", "two"), ("a.jsonl", '{"text": "a", "other": "b"}')):
        (tmp_path / name).write_text(text)
    pl.DataFrame({"text": ["a"], "other": ["b"]}).write_parquet(tmp_path / "a.parquet")
    for name, seed in (("a.npy", 0), ("b.npy", 1)):
        np.save(tmp_path / name, np.random.default_rng(seed).integers(0, 9, (4, 16)))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(name)
    at = {name: str(tmp_path / name) for name in os.listdir(tmp_path)}
    hub = {"dataset": "org/texts", "file": "a.txt"}
    changes: dict[str, list[tuple[dict[str, Any], Any]]] = {
        "text": [({"text": at["a.txt"]}, at["b.txt"])],
        "dataset": [(hub, "org/others")],
        "file": [(hub, "b.txt")],
        "revision": [(hub, "v2")],
        "field": [({"text": at["a.jsonl"]}, "other"), ({"text": at["a.parquet"]}, "other"), (hub, "other")],
        "ids": [({"ids": at["a.npy"]}, at["b.npy"])],
        "tokenizer": [({"text": at["a.txt"], "tokenizer": at["one"]}, at["two"]), ({}, at["one"])],
    }
    assert set(changes) == {each.name for each in fields(ProbeSource)}
    for field, cases in changes.items():
        for given, other in cases:
            labels = {spec_of(ProbeSource(**given), n=16, number=4).label,
                      spec_of(ProbeSource(**given | {field: other}), n=16, number=4).label}  # fmt: skip
            assert len(labels) == 2, (field, given)
    whole = ProbeSpec("n", "t", 8, 1, target_error=0.1, loss=False)
    assert {each.name for each in fields(ProbeSpec)} == {*whole.identity}
    column = ProbeSource(text=at["a.parquet"])
    assert (
        spec_of(column, n=16, number=4).text_digest
        == hashlib.sha256((tmp_path / "a.parquet").read_bytes()).hexdigest()
    ), "results of earlier versions keep their keys"


def test_bad_input_is_named(tokenizer: PreTrainedTokenizerFast, tmp_path: Path):
    def refused(
        source: ProbeSource,
        message: str,
        kind: type[Exception] = RequestError,
        vocabulary: int = 400,
        spec=None,
        tok: object = tokenizer,
        **options,
    ) -> None:
        with pytest.raises(kind, match=message):
            encode_probe(spec or spec_of(source), source, tok, vocabulary=vocabulary, **options)

    (tmp_path / "short.txt").write_text("one two three")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "broken.jsonl").write_text("{")
    np.save(tmp_path / "ids.npy", np.zeros((2, 7)))
    refused(
        ProbeSource(text=str(tmp_path / "none.txt")),
        r"probe.text=.*none.txt: invalid value; expected a file that",
    )
    refused(
        ProbeSource(text=str(tmp_path / "short.txt")),
        r"probe.sequences=4: the text gives only 0 sequences",
        CheckpointError,
    )
    refused(ProbeSource(text=str(tmp_path / "binary.txt")), r"probe: binary.txt cannot be read as .txt")
    refused(ProbeSource(text=str(tmp_path / "broken.jsonl")), r"probe: broken.jsonl cannot be read as .jsonl")
    refused(
        ProbeSource(ids=str(tmp_path / "ids.npy")), r"holds float64 of shape \(2, 7\); wanted whole numbers"
    )
    refused(ProbeSource(ids=str(tmp_path / "short.txt")), r"cannot be read as .npy or .json token ids")
    refused(ProbeSource(text="a", ids="b"), r"probe.text and probe.ids are both given")
    refused(ProbeSource(dataset="org/name"), r"probe.dataset needs probe.file")
    refused(
        ProbeSource(tokenizer=str(tmp_path / "no")), r"probe.tokenizer=.*no: invalid value; expected a folder"
    )
    refused(ProbeSource(), "a probe of text needs a tokenizer", tok=None)
    refused(ProbeSource(), "beyond the model's vocabulary of 50", CheckpointError, vocabulary=50)
    refused(
        ProbeSource(),
        r"probe.n=32 is longer than the model's 16 positions",
        CheckpointError,
        max_positions=16,
    )
    plain = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with_bos = replace(spec_of(ProbeSource()), bos=True)
    refused(ProbeSource(), "no beginning-of-sequence token", CheckpointError, spec=with_bos, tok=plain)
    with pytest.raises(RequestError, match=r"probe.n=2: invalid value; expected 8 tokens or more"):
        spec_of(ProbeSource(), n=2)
    with pytest.raises(RequestError, match=r"probe.sequences=0: invalid value; expected 1 sequence or more"):
        spec_of(ProbeSource(), number=0)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"no tokenizer loads from it .*give probe.tokenizer=FOLDER"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("ids.npy", b""), ("ids.npy", b"\x93NUMPY\x01\x00"), ("ids.json", b"[" * 200_000), ("ids.json", b"\xff"),
     ("ids.json", b"[[1e999]]"), ("ids.json", b"[[1], [1, 2]]"), ("ids.json", b'[["a"]]'),
     ("ids.json", b"null"), ("ids.json", b"[[1" + b"0" * 30 + b"]]")],
)  # fmt: skip
def test_ids_that_are_damaged_are_one_line(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    source = ProbeSource(ids=str(tmp_path / name))
    with pytest.raises(RequestError, match=r"probe\.ids=.*(cannot be read|wanted whole numbers)"):
        encode_probe(spec_of(source, n=8, number=1), source, None, vocabulary=9)


def test_the_digest_of_a_tokenizer_is_what_keys_of_stored_results_were_made_with(tmp_path: Path):
    order = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt",
             "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")  # fmt: skip
    for name in (*order, "sentencepiece.bpe.model"):
        (tmp_path / name).write_text(name)
    expected = digest([hashlib.sha256(name.encode()).hexdigest() for name in order])
    assert tokenizer_digest(tmp_path) == expected


def test_a_configuration_without_vocabulary_is_no_tokenizer(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt_neox"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPTNeoXTokenizerFast"}')
    with pytest.raises(CheckpointError, match=r"no tokenizer in this folder; give probe.tokenizer=FOLDER"):
        load_tokenizer(tmp_path)


def test_of_a_long_text_only_the_beginning_is_encoded_with_the_same_ids(tokenizer, tmp_path: Path):
    text = DEFAULT_TEXT.read_text()
    (tmp_path / "long.txt").write_text(text)
    source = ProbeSource(text=str(tmp_path / "long.txt"))
    seen: list[int] = []

    class Counting:
        """The tokenizer, noting how much text it is given."""

        def __call__(self, part: str, **options):
            seen.append(len(part))
            return tokenizer(part, **options)

        def __getattr__(self, name: str):
            return getattr(tokenizer, name)

        def __len__(self) -> int:
            return len(tokenizer)

    found = encode_probe(spec_of(source, 96, 4), source, Counting(), vocabulary=400)
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    np.testing.assert_array_equal(found.ids.ravel(), whole[: 96 * 4])
    assert sum(seen) < len(text) / 10


def test_special_ids_are_left_out_also_where_only_the_vocabulary_marks_them(tokenizer):
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    assert bare.all_special_ids == []
    found = encode_probe(spec_of(ProbeSource()), ProbeSource(), bare, vocabulary=400)
    assert 0 not in found.prefix_ids  # <s>


def test_line_separators_inside_documents_do_not_end_them(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "one\u2028two"}, ensure_ascii=False), encoding="utf-8")
    assert read_text(ProbeSource(text=str(path))) == "one\u2028two"
    pl.DataFrame({"other": ["a"]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(RequestError, match=r"probe: a.parquet cannot be read as .parquet, field 'text'"):
        read_text(ProbeSource(text=str(tmp_path / "a.parquet")))


def test_a_data_set_on_the_hub_is_read_at_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for revision, text in (("main", "new"), ("v1", "old")):
        folder = tmp_path / "hub" / "org" / "texts" / revision
        folder.mkdir(parents=True)
        pl.DataFrame({"body": [text, "end"]}).write_parquet(folder / "part.parquet")
    with loopback_hub(tmp_path / "hub") as hub:
        use_hub(monkeypatch, hub, tmp_path / "home")
        source = ProbeSource(dataset="org/texts", file="part.parquet", field="body", revision="v1")
        assert read_text(source) == "old\n\nend"
        assert read_text(replace(source, revision="main")) == "new\n\nend"
        with pytest.raises(RequestError, match=r"probe.dataset=org/texts: none.parquet cannot be fetched"):
            read_text(replace(source, file="none.parquet"))
        with pytest.raises(RequestError, match=r"probe.dataset=no/where: part.parquet cannot be fetched"):
            read_text(replace(source, dataset="no/where"))
