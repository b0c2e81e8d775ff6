"""Trains one model of the suite, saves its checkpoints, and goes on where it was interrupted."""

import importlib.metadata
import math
import pickle
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from tracker.atomic import clear_leftovers, save_file, save_folder, save_json
from tracker.errors import TrackerError
from tracker.nano.batches import Batches
from tracker.nano.job import Job
from tracker.nano.model import decay_groups, fresh
from tracker.nano.recipe import checkpoint_steps, learning_rate

PACKAGES = ("torch", "transformers", "tokenizers", "numpy")
RESUME = "resume.pt"
STATE_SECONDS = 10.0
"""So much training at most is done again after it was interrupted between two checkpoints."""
OnStep = Callable[[int, float], None]


@dataclass
class Progress:
    """What a training has behind it, apart from weights and optimizer."""

    step: int = 0
    seconds: float = 0.0
    training_loss: list[float] = field(default_factory=list)
    """Nats per token of the batch of each iteration, before its update."""
    held_out_loss: list[tuple[int, float]] = field(default_factory=list)
    """(step, nats per token) at each checkpoint."""

    def recent_loss(self) -> float | None:
        """Mean training loss since the checkpoint before, None at step 0."""
        before = self.held_out_loss[-2][0] if len(self.held_out_loss) > 1 else 0
        recent = self.training_loss[before : self.step]
        return float(np.mean(recent)) if recent else None


def train_model(job: Job, on_step: OnStep = lambda step, loss: None) -> None:
    """Train what is missing of one model, in this process and with the threads torch has.

    Interrupted at any point and called again, it gives bit for bit what an undisturbed run gives on the
    same machine with the same package versions and thread count. Nothing random is drawn while training.

    Args:
        job: what to train and where to save it. Only one process may train a job at a time.
        on_step: called with each finished step and its training loss.

    Raises:
        TrackerError: the loss is not finite, or the resume file does not belong here.
    """
    if not job.missing():
        return
    job.folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(job.folder)
    _Training(job, on_step).run()


class _Training:
    """Weights, optimizer, data and progress of one job."""

    def __init__(self, job: Job, on_step: OnStep) -> None:
        recipe = job.recipe
        self.job, self.on_step = job, on_step
        self.model = fresh(recipe, job.size, recipe.vocab, job.seed, job.encoding)
        self.optimizer = torch.optim.AdamW(
            decay_groups(self.model, recipe.weight_decay),
            lr=0.0,
            betas=recipe.betas,
            eps=recipe.epsilon,
            fused=True,
        )
        self.batches = Batches(recipe, job.corpus.ids(), job.seed)
        self.progress = Progress()
        self.stated = 0.0
        """Seconds of training at which its state was saved last."""

    def run(self) -> None:
        """From the resume file, or from the beginning, to the last step."""
        job, progress = self.job, self.progress
        saved = set(checkpoint_steps(job.recipe))
        self._resume()
        started = time.monotonic() - progress.seconds
        if progress.step == 0:
            self._save()
        while progress.step < job.recipe.train_steps:
            loss = self._step()
            progress.training_loss.append(round(loss, 6))
            progress.step += 1
            progress.seconds = time.monotonic() - started
            if progress.step in saved:
                self._save()
            elif progress.seconds - self.stated > STATE_SECONDS:
                self._save_state()
            self.on_step(progress.step, loss)
        (job.folder / RESUME).unlink(missing_ok=True)

    def _step(self) -> float:
        """One optimizer step on one batch; its loss in nats per token."""
        recipe, iteration = self.job.recipe, self.progress.step
        loss = self._loss(self.batches.training(iteration))
        value = self._finite(loss, "training")
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, self.job.size, iteration)
        self.optimizer.step()
        return value

    def _finite(self, loss: torch.Tensor, which: str) -> float:
        value = loss.item()
        if not math.isfinite(value):
            raise TrackerError(
                f"{self.job.label} step {self.progress.step}: {which} loss is {value}. "
                f"Lower suite.peak_learning_rate ({self.job.recipe.peak_learning_rate})."
            )
        return value

    def _loss(self, ids: np.ndarray) -> torch.Tensor:
        """Mean cross-entropy of ids[:, 1:] given ids[:, :-1], in nats per token."""
        inputs, targets = torch.from_numpy(ids[:, :-1].copy()), torch.from_numpy(ids[:, 1:].copy())
        return F.cross_entropy(self.model(inputs).logits.flatten(0, 1), targets.flatten())

    def _save(self) -> None:
        """The checkpoint first, then the state: a state never runs ahead of its checkpoints."""
        job, progress = self.job, self.progress
        with torch.no_grad():
            held_out = round(self._finite(self._loss(self.batches.held_out()), "held-out"), 6)
        progress.held_out_loss.append((progress.step, held_out))
        save_folder(job.step_folder(progress.step), self._fill)
        save_json(
            job.folder / "training.json",
            self._record()
            | {
                "seconds": round(progress.seconds, 1),
                "training_loss": progress.training_loss,
                "held_out_loss": progress.held_out_loss,
            },
        )
        self._save_state()

    def _save_state(self) -> None:
        """Write what the training goes on from in another process."""
        job = self.job
        state = {
            "label": job.label,
            "recipe": job.recipe.digest,
            "text": job.corpus.text_digest,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
        }
        save_file(job.folder / RESUME, lambda new: torch.save(state, new))
        self.stated = self.progress.seconds

    def _fill(self, folder: Path) -> None:
        """Everything a user of the checkpoint needs: weights, configuration, tokenizer, provenance."""
        self.model.save_pretrained(folder)
        for file in self.job.corpus.tokenizer_files:
            shutil.copyfile(file, folder / file.name)
        save_json(folder / "training.json", self._record())

    def _record(self) -> dict[str, Any]:
        job, progress = self.job, self.progress
        return {
            "suite": "nano",
            "model": job.model,
            "seed": job.seed,
            "step": progress.step,
            "tokens_seen": progress.step * job.recipe.tokens_per_step,
            "mean_training_loss_since_last_checkpoint": progress.recent_loss(),
            "mean_held_out_loss": progress.held_out_loss[-1][1],
            "python": platform.python_version(),
            "text_digest": job.corpus.text_digest,
            "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
            "recipe": asdict(job.recipe),
            "recipe_digest": job.recipe.digest,
            "identity": job.identity,
        }

    def _resume(self) -> None:
        """Take weights, optimizer and progress from the resume file, where there is one."""
        job, path = self.job, self.job.folder / RESUME
        if not path.is_file():
            return
        try:
            state = torch.load(path, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise TrackerError(
                f"{path} cannot be read ({type(error).__name__}). Delete it to train {job.label} from step 0."
            ) from error
        found = (state["label"], state["recipe"], state["text"])
        if found != (job.label, job.recipe.digest, job.corpus.text_digest):
            raise TrackerError(
                f"{path} belongs to {found[0]} of another recipe or text, not to {job.label}. "
                f"Delete {job.folder} to train it afresh."
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["progress"].items():
            setattr(self.progress, name, value)
        self.stated = self.progress.seconds
