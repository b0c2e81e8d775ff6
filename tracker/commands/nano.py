"""``tracker nano``: train the embedded suite."""

import uuid
from collections.abc import Iterable

from rich.console import Console

from tracker.config import Config, NanoSuite
from tracker.console.output import DONE, print_line
from tracker.console.progress import Bars
from tracker.errors import RequestError
from tracker.planning.resolve import nano_recipe, resolve
from tracker.store import Store, kept_in_sight
from tracker.store.progress import SweepProgress


def run(config: Config, console: Console) -> int:
    """Train the embedded suite and measure nothing."""
    if not isinstance(config.suite, NanoSuite):
        raise RequestError(f"tracker nano trains suite=nano, not suite={config.suite.name}")
    resolve(config)
    prepare_store(Store(config.store))
    with kept_in_sight(config.store) as store:
        train(config, console, config.suite.models, store)
    print_line(console, f"Trained: {', '.join(config.suite.models)} below {config.store / 'nano'}")
    return DONE


def train(
    config: Config,
    console: Console,
    models: Iterable[str],
    store: Store,
    progress: SweepProgress | None = None,
) -> None:
    """Train what the embedded suite lacks, with a bar per model and seed.

    Args:
        config: the request, of suite=nano.
        console: shows the bars.
        models: those to train.
        store: the request's; training ends where it is gone.
        progress: also gets the bars, for a dashboard that follows.
    """
    from tracker.nano import suite_checkpoints, train_suite

    suite = config.suite
    assert isinstance(suite, NanoSuite)
    recipe, folder = nano_recipe(suite), config.store / "nano"
    wanted = [model for model in suite.models if model in set(models)]
    lacking = {
        (c.model, c.seed) for c in suite_checkpoints(recipe, folder, wanted, suite.seeds) if not c.exists
    }
    if not lacking:
        return
    bars = Bars(console, "training", progress)
    for model, seed in sorted(lacking):
        bars.add(f"{model} seed {seed}", recipe.train_steps)

    def moved(model: str, seed: int, step: int, total: int, loss: float) -> None:
        store.require_same()
        bars.advance_to(f"{model} seed {seed}", step, f"loss {loss:.2f}")

    with bars.running():
        train_suite(recipe, folder, wanted, suite.seeds, moved, suite.threads)


def prepare_store(store: Store) -> None:
    """Make the store's folder, and clear what killed sweeps left half-written.

    Raises:
        RequestError: it cannot be written to.
    """
    try:
        store.checkpoints.mkdir(parents=True, exist_ok=True)
        probe = store.folder / f".writable-{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RequestError(
            f"store={store.folder}: cannot be written: {error}; choose another folder"
        ) from error
    store.sweep_partial()
