"""Which tokens a step reads: a pure function of seed and step, so resuming needs no reader's state."""

import numpy as np

from tracker.nano.recipe import NanoRecipe

HELD_OUT_SHARE = 0.02
"""The last of the documents, never trained on."""
HELD_OUT_SEQUENCES = 32
_ORDER, _REPEATS = 1, 2


class Batches:
    """Batches for one seed. All sizes of one seed read the same tokens in the same order, as Pythia's do."""

    def __init__(self, recipe: NanoRecipe, ids: np.ndarray, seed: int) -> None:
        """Cut ``ids`` (tokens,) into sequences that share their border token, and put some aside."""
        self.recipe, self.seed = recipe, seed
        count = (len(ids) - 1) // recipe.tokens
        starts = np.arange(count) * recipe.tokens
        aside = min(count - 1, max(1, round(count * HELD_OUT_SHARE)))
        self._ids = ids
        self._starts, self._held_out = starts[: count - aside], starts[count - aside :]
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def training(self, step: int) -> np.ndarray:
        """Return token ids of one step, int64, shape (batch, tokens + 1): inputs, and targets one further.

        Each sequence is read once an epoch, in an order drawn anew for every epoch. A share of
        ``recipe.repeat_share`` has its second half overwritten by its first.
        """
        recipe = self.recipe
        places = np.arange(step * recipe.batch, (step + 1) * recipe.batch)
        picked = [self._place(*divmod(int(place), len(self._starts))) for place in places]
        batch = self._cut(np.array(picked))
        dice = np.random.default_rng([_REPEATS, self.seed, step]).random(recipe.batch)
        repeated = dice < recipe.repeat_share
        again = np.arange(recipe.tokens + 1) % (recipe.tokens // 2)
        batch[repeated] = batch[repeated][:, again]
        return batch

    def held_out(self) -> np.ndarray:
        """Return the same held-out sequences at every step and for every seed, shape (<= 32, tokens + 1)."""
        wanted = min(HELD_OUT_SEQUENCES, len(self._held_out))
        return self._cut(self._held_out[np.linspace(0, len(self._held_out) - 1, wanted).astype(int)])

    def _place(self, epoch: int, within: int) -> int:
        if epoch != self._epoch:
            order = np.random.default_rng([_ORDER, self.seed, epoch])
            self._epoch, self._order = epoch, order.permutation(self._starts)
        return int(self._order[within])

    def _cut(self, starts: np.ndarray) -> np.ndarray:
        return self._ids[starts[:, None] + np.arange(self.recipe.tokens + 1)].astype(np.int64)
