"""A small GPT-NeoX of the embedded suite with dropout, its text, and a real Trainer that trains it."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from tracker.measurement.probe import DEFAULT_TEXT
from tracker.nano.model import fresh
from tracker.nano.recipe import SIZES, NanoRecipe

TOKENS = 64
RECIPE = NanoRecipe(tokens=TOKENS, vocab=257)
for name in ("WANDB_MODE", "WANDB_DISABLED"):
    os.environ.pop(name, None)


def nano_model(size: str = "0.05m", seed: int = 0) -> Any:
    """The embedded suite's model, with dropout on: every step of its training draws random numbers."""
    model = fresh(RECIPE, SIZES[size], RECIPE.vocab, seed)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
        elif hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.1
    return model


def texts(count: int) -> np.ndarray:
    """Bytes of the default probe's text as ids, shape (count, TOKENS)."""
    text = np.frombuffer(DEFAULT_TEXT.read_bytes()[: count * TOKENS], np.uint8)
    return text.reshape(count, TOKENS).astype(np.int64)


PROBE = texts(4)


class Losses(TrainerCallback):
    """Keeps the loss of every step, and the weights at the end."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])


def train(folder: Path, *callbacks: TrainerCallback, steps: int = 40, size: str = "0.05m", seed: int = 0,
          resume: bool = False, save: int | None = None, stop: int | None = None,
          **given: Any) -> tuple[list[float], dict[str, torch.Tensor]]:  # fmt: skip
    """A run of ``transformers.Trainer``: the loss of every step, and the weights it ends with."""
    model = nano_model(size, seed)
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=4, learning_rate=8e-3,
        lr_scheduler_type="constant", logging_steps=1, save_strategy="steps" if save else "no",
        save_steps=save or 500, report_to=[], seed=seed, disable_tqdm=True, use_cpu=True,
        dataloader_pin_memory=False, **given,
    )  # fmt: skip
    data = [{"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(ids)} for ids in texts(256)]
    losses = Losses()
    trainer = Trainer(model=model, args=arguments, train_dataset=data,  # type: ignore[arg-type]
                      callbacks=[*callbacks, losses])  # fmt: skip
    trainer.train(resume_from_checkpoint=resume or None)
    return losses.losses, {name: w.detach().clone() for name, w in model.named_parameters()}
