"""One model of the suite that is to be trained, and where its checkpoints go."""

from dataclasses import dataclass
from pathlib import Path

from tracker.nano.corpus import Corpus
from tracker.nano.encoding import Encoding
from tracker.nano.recipe import NanoRecipe, Size, checkpoint_steps, encoding_of_model, size_of
from tracker.records import Checkpoint


@dataclass(frozen=True)
class Job:
    """What to train, from which seed and text, and the folder of its checkpoints."""

    recipe: NanoRecipe
    model: str
    seed: int
    corpus: Corpus
    folder: Path
    """Holds ``step<k>`` folders, ``training.json``, and ``resume.pt`` while unfinished."""

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"{self.model} seed {self.seed}"

    @property
    def size(self) -> Size:
        """The model's shape."""
        return size_of(self.model)

    @property
    def encoding(self) -> Encoding:
        """How the model encodes positions."""
        return encoding_of_model(self.model)

    @property
    def identity(self) -> str:
        """What the weights come from, wherever they lie: recipe, text, model and seed."""
        return f"nano:{self.recipe.digest}:{self.corpus.text_digest}:{self.model}:{self.seed}"

    def step_folder(self, step: int) -> Path:
        """Where the checkpoint after ``step`` optimizer steps lies."""
        return self.folder / f"step{step}"

    def missing(self) -> list[int]:
        """Steps that are to be saved and are not there."""
        return [step for step in checkpoint_steps(self.recipe) if not self.step_folder(step).is_dir()]

    def checkpoints(self) -> list[Checkpoint]:
        """Every checkpoint, in order; ``exists`` is None where training has yet to make it."""
        return [self._checkpoint(step) for step in checkpoint_steps(self.recipe)]

    def _checkpoint(self, step: int) -> Checkpoint:
        return Checkpoint(
            suite="nano",
            model=self.model,
            seed=self.seed,
            step=step,
            kind="folder",
            location=str(self.folder),
            revision=f"step{step}",
            tokens_seen=step * self.recipe.tokens_per_step,
            identity=self.identity,
            exists=True if self.step_folder(step).is_dir() else None,
        )
