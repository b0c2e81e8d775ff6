"""The embedded suite trained for real, in its smallest size: what is saved, and what resuming gives."""

import dataclasses
import json
import platform
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tracker.errors import TrackerError
from tracker.nano import NanoRecipe, checkpoint_steps
from tracker.nano.corpus import documents, prepare
from tracker.nano.job import Job
from tracker.nano.model import fresh
from tracker.nano.recipe import SIZES
from tracker.nano.training import train_model

TINY = NanoRecipe(train_steps=20, batch=2, tokens=16, vocab=300, text_bytes=200_000)


@pytest.fixture(autouse=True)
def _one_quiet_thread(monkeypatch):
    from transformers.utils import logging

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return prepare(TINY, documents(TINY.text_bytes), tmp_path_factory.mktemp("nano") / "text")


def _job(corpus, folder: Path, recipe: NanoRecipe = TINY, seed: int = 0) -> Job:
    return Job(recipe, "0.05m", seed, corpus, folder)


@pytest.fixture(scope="module")
def undisturbed(corpus, tmp_path_factory):
    torch.set_num_threads(1)
    job = _job(corpus, tmp_path_factory.mktemp("undisturbed") / "seed-0")
    train_model(job)
    return job


def _weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


class Interrupted(Exception):
    pass


def test_every_step_is_saved_and_nothing_else_stays(undisturbed):
    names = {path.name for path in undisturbed.folder.iterdir()}
    assert names == {f"step{step}" for step in checkpoint_steps(TINY)} | {"training.json"}
    for step in checkpoint_steps(TINY):
        files = {path.name for path in undisturbed.step_folder(step).iterdir()}
        assert files == {
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            "training.json",
        }


def test_checkpoints_load_as_hugging_face_folders_of_the_named_shape(undisturbed):
    model = AutoModelForCausalLM.from_pretrained(undisturbed.step_folder(20), dtype=torch.float32)
    config, size = model.config, SIZES["0.05m"]
    assert config.model_type == "gpt_neox"
    assert config.use_parallel_residual
    assert not config.tie_word_embeddings
    assert config.rope_parameters["partial_rotary_factor"] == 0.25
    embeddings = {"gpt_neox.embed_in.weight", "lm_head.weight"}
    counted = {name: weights.numel() for name, weights in model.named_parameters()}
    assert embeddings < set(counted)
    assert sum(number for name, number in counted.items() if name not in embeddings) == size.non_embedding
    tokenizer = AutoTokenizer.from_pretrained(undisturbed.step_folder(20))
    assert len(tokenizer) == TINY.vocab
    text = "def walk(self):\n    return 'Kellynch Hall, 1818 – übrigens'\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_step0_and_step1_are_twins_and_step2_is_not(undisturbed):
    zero, one, two = (_weights(undisturbed.step_folder(step)) for step in (0, 1, 2))
    assert zero == one
    assert one != two


def test_fresh_weights_follow_small_init_and_wang_init():
    size = SIZES["0.8m"]
    model = fresh(NanoRecipe(), size, 1024, seed=3)
    small, wang = (2 / (5 * size.width)) ** 0.5, 2 / (size.layers * size.width**0.5)
    block = "gpt_neox.layers.1"
    for name, sd in [
        ("gpt_neox.embed_in.weight", small),
        ("lm_head.weight", small),
        (f"{block}.attention.query_key_value.weight", small),
        (f"{block}.mlp.dense_h_to_4h.weight", small),
        (f"{block}.attention.dense.weight", wang),
        (f"{block}.mlp.dense_4h_to_h.weight", wang),
    ]:
        assert model.get_parameter(name).std().item() == pytest.approx(sd, rel=0.03), name
    for name, value in [
        (f"{block}.attention.query_key_value.bias", 0),
        (f"{block}.mlp.dense_h_to_4h.bias", 0),
        (f"{block}.input_layernorm.weight", 1),
        (f"{block}.post_attention_layernorm.weight", 1),
        ("gpt_neox.final_layer_norm.weight", 1),
        ("gpt_neox.final_layer_norm.bias", 0),
    ]:
        assert set(model.get_parameter(name).tolist()) == {value}, name
    assert torch.equal(model.lm_head.weight, fresh(NanoRecipe(), size, 1024, seed=3).lm_head.weight)
    assert not torch.equal(model.lm_head.weight, fresh(NanoRecipe(), size, 1024, seed=4).lm_head.weight)


def test_training_lowers_the_loss(corpus, tmp_path):
    recipe = dataclasses.replace(TINY, train_steps=60, batch=8)
    job = _job(corpus, tmp_path / "seed-0", recipe)
    train_model(job)
    held_out = json.loads((job.folder / "training.json").read_text())["held_out_loss"]
    first, last = held_out[0][1], held_out[-1][1]
    assert first == pytest.approx(5.7, abs=0.4)  # log 300, and a little for untrained logits
    assert last < first - 1


def test_provenance_is_recorded_beside_every_checkpoint(undisturbed, corpus):
    record = json.loads((undisturbed.step_folder(16) / "training.json").read_text())
    assert record["python"] == platform.python_version()
    assert record["text_digest"] == corpus.text_digest
    assert (record["model"], record["seed"], record["step"]) == ("0.05m", 0, 16)
    assert record["tokens_seen"] == 16 * 2 * 16
    assert record["recipe_digest"] == TINY.digest
    assert record["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    curve = json.loads((undisturbed.folder / "training.json").read_text())
    assert len(curve["training_loss"]) == TINY.train_steps
    assert [step for step, _ in curve["held_out_loss"]] == list(checkpoint_steps(TINY))
    assert record["mean_training_loss_since_last_checkpoint"] == pytest.approx(
        sum(curve["training_loss"][8:16]) / 8
    )


@pytest.mark.parametrize("stop_after", [1, 11, 16])
def test_interrupted_and_resumed_training_is_bit_identical(undisturbed, corpus, tmp_path, stop_after):
    job = _job(corpus, tmp_path / "seed-0")

    def stop(step, loss):
        if step == stop_after:
            raise Interrupted

    with pytest.raises(Interrupted):
        train_model(job, stop)
    assert job.missing()
    seen = []
    train_model(job, lambda step, loss: seen.append(step))
    last_saved = max(step for step in checkpoint_steps(TINY) if step <= stop_after)
    assert seen == list(range(last_saved + 1, TINY.train_steps + 1))
    for step in checkpoint_steps(TINY):
        assert _weights(job.step_folder(step)) == _weights(undisturbed.step_folder(step)), step
    ours, theirs = (json.loads((one.folder / "training.json").read_text()) for one in (job, undisturbed))
    assert ours["training_loss"] == theirs["training_loss"]


def test_between_checkpoints_the_state_is_saved_by_the_clock(undisturbed, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("tracker.nano.training.STATE_SECONDS", 0.0)
    job = _job(corpus, tmp_path / "seed-0")

    def stop(step, loss):
        if step == 13:
            raise Interrupted

    with pytest.raises(Interrupted):
        train_model(job, stop)
    seen = []
    train_model(job, lambda step, loss: seen.append(step))
    assert seen[0] == 14
    for step in checkpoint_steps(TINY):
        assert _weights(job.step_folder(step)) == _weights(undisturbed.step_folder(step)), step


def test_a_deleted_checkpoint_comes_back_the_same(undisturbed, corpus, tmp_path):
    job = _job(corpus, tmp_path / "seed-0")
    shutil.copytree(undisturbed.folder, job.folder)
    shutil.rmtree(job.step_folder(8))
    train_model(job)
    assert _weights(job.step_folder(8)) == _weights(undisturbed.step_folder(8))


def test_foreign_resume_file_is_refused(corpus, tmp_path):
    job = _job(corpus, tmp_path / "seed-0")

    def stop(step, loss):
        raise Interrupted

    with pytest.raises(Interrupted):
        train_model(job, stop)
    other = _job(corpus, job.folder, seed=5)
    message = r"belongs to 0\.05m seed 0 .*not to 0\.05m seed 5\. Delete .* to train it"
    with pytest.raises(TrackerError, match=message):
        train_model(other)


def test_broken_resume_file_is_named(corpus, tmp_path):
    job = _job(corpus, tmp_path / "seed-0")
    job.folder.mkdir()
    (job.folder / "resume.pt").write_bytes(b"no archive")
    message = r"resume\.pt cannot be read .*Delete it to train 0\.05m seed 0 from step 0"
    with pytest.raises(TrackerError, match=message):
        train_model(job)


def test_diverged_training_is_named(corpus, tmp_path):
    recipe = dataclasses.replace(TINY, peak_learning_rate=1e30, clip_norm=1e30)
    message = r"0\.05m seed 0 step \d+: (training|held-out) loss is nan. Lower suite\.peak_learning"
    with pytest.raises(TrackerError, match=message):
        train_model(_job(corpus, tmp_path / "seed-0", recipe))
