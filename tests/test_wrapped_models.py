"""Models as training wraps them: what is measured is the model inside, its adapters included."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from live_material import PROBE, nano_model, texts, train
from polars.testing import assert_frame_equal
from torch import nn
from transformers import Trainer, TrainingArguments

import tracker
from tracker.errors import CheckpointError, RequestError
from tracker.models.unwrap import unwrap

# PEFT asks transformers for a name that is going out of use.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


class Lightning(nn.Module):
    """A module of one's own that holds the model under a name of its own, beside other things."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.net, self.metric = model, nn.Linear(2, 2)


class ValueHead(nn.Module):
    """As TRL keeps a policy."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.pretrained_model, self.v_head = model, nn.Linear(2, 1)


@pytest.fixture(autouse=True)
def _accelerate_as_it_was() -> Iterator[None]:
    """What a Trainer of another test has set is of this process, and so is what a test here sets."""
    state = pytest.importorskip("accelerate.state").AcceleratorState
    state._reset_state(reset_partial_state=True)
    yield
    state._reset_state(reset_partial_state=True)


def prepared(model: Any) -> Any:
    from accelerate import Accelerator

    return Accelerator(cpu=True, mixed_precision="bf16").prepare(model)


def compiled_in_parts(model: Any) -> Any:
    from accelerate.utils import compile_regions

    return compile_regions(model, backend="eager")


WRAPPERS = {
    "data parallel": nn.DataParallel,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "compiled and parallel": lambda model: torch.compile(nn.DataParallel(model), backend="eager"),
    "accelerate": prepared,
    "regions": compiled_in_parts,
    "lightning": Lightning,
    "trl": ValueHead,
    "nested": lambda model: nn.DataParallel(Lightning(ValueHead(model))),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_what_is_wrapped_measures_as_the_model_itself(wrapper: str):
    bare = tracker.track(nano_model(), PROBE)
    found = tracker.track(WRAPPERS[wrapper](nano_model()), PROBE)
    assert_frame_equal(found.heads, bare.heads)
    assert found.summary["loss"].item() == pytest.approx(bare.summary["loss"].item(), abs=1e-6)


def test_distributed_data_parallel_is_unwrapped(tmp_path: Path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        model = nano_model()
        assert unwrap(torch.compile(nn.parallel.DistributedDataParallel(model), backend="eager")) is model
    finally:
        torch.distributed.destroy_process_group()


def test_two_models_beside_each_other_are_not_guessed_between():
    both = nn.ModuleDict({"policy": nano_model(), "reference": nano_model()})
    with pytest.raises(RequestError, match="ModuleDict is not a transformers model"):
        unwrap(both)


def test_a_learned_prompt_is_refused_as_its_numbers_would_stand_still():
    model = nano_model()
    wrapper = nn.Module()
    wrapper.base_model = model
    wrapper.peft_config = {"default": type("PromptTuning", (), {"is_prompt_learning": True})()}  # type: ignore[assignment]
    with pytest.raises(CheckpointError, match="its adapter learns a prompt"):
        unwrap(wrapper)


def adapted(kind: str, model: Any) -> Any:
    peft = pytest.importorskip("peft")
    on = {"task_type": "CAUSAL_LM", "target_modules": ["query_key_value"]}
    if kind == "lora":
        return peft.get_peft_model(model, peft.LoraConfig(**on, init_lora_weights=False))
    if kind == "lora of embedding and head":
        on["target_modules"] = ["query_key_value", "embed_in", "lm_head"]
        return peft.get_peft_model(model, peft.LoraConfig(**on, init_lora_weights=False))
    if kind == "whole modules":
        config = peft.LoraConfig(**on, init_lora_weights=False, modules_to_save=["embed_in", "lm_head"])
        return peft.get_peft_model(model, config)
    if kind == "mixed":
        return peft.get_peft_model(model, peft.LoraConfig(**on, init_lora_weights=False), mixed=True)
    if kind == "ia3":
        return peft.get_peft_model(
            model, peft.IA3Config(**on, feedforward_modules=[], init_ia3_weights=False)
        )
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    return peft.get_peft_model(model, config)


KINDS = ("lora", "lora of embedding and head", "whole modules", "mixed", "ia3")


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_measures_as_the_model_it_is_merged_into(kind: str):
    torch.manual_seed(1)
    model = adapted(kind, nano_model())
    found = tracker.track(nn.DataParallel(model), PROBE)
    merged = tracker.track(model.merge_and_unload(), PROBE)
    assert not found.heads.equals(tracker.track(nano_model(), PROBE).heads)
    assert_frame_equal(found.heads, merged.heads, rel_tol=1e-3, abs_tol=1e-4)
    assert found.summary["loss"].item() == pytest.approx(merged.summary["loss"].item(), abs=1e-5)


@pytest.mark.parametrize("kind", ["lora", "mixed", "prompt"])
def test_a_trainer_with_an_adapter_trains_to_its_end(kind: str, tmp_path: Path):
    model = adapted(kind, nano_model())
    callback = tracker.TrackerCallback(PROBE, store=tmp_path / "store", every=2, share=None)
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=3, per_device_train_batch_size=4, learning_rate=8e-3,
        logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
        dataloader_pin_memory=False, remove_unused_columns=False,
    )  # fmt: skip
    data: Any = [{"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(ids)} for ids in texts(16)]
    state = Trainer(model=model, args=arguments, train_dataset=data, callbacks=[callback]).train()
    assert state.global_step == 3
    if kind == "prompt":
        assert "its adapter learns a prompt" in callback.account.sentences[0]
        return
    rows = tracker.open_store(tmp_path / "store").checkpoints().filter(pl.col("status") == "ok")
    assert rows["step"].to_list() == [0, 1, 2, 3]
    assert rows["loss"].n_unique() == 4


def test_a_compiled_training_is_measured(tmp_path: Path):
    callback = tracker.TrackerCallback(PROBE, store=tmp_path / "store", every=2, share=None)
    losses, _ = train(tmp_path / "run", callback, steps=2, torch_compile=True, torch_compile_backend="eager")
    assert (len(losses), callback.account.measured, callback.account.failed) == (2, 3, 0)
