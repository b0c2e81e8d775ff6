"""A checkpoint of a request, loaded with its probe, for analyses that go beyond the measurement."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tracker.checkpoints import CheckpointCache
from tracker.engines.prefetch import Prefetch
from tracker.errors import CheckpointError
from tracker.measurement.probe import encode_probe, load_tokenizer, tokenizer_folder
from tracker.models import load_model, model_facts
from tracker.planning.resolve import ResolvedSweep
from tracker.records import PlannedUnit


@contextmanager
def load_with_probe(
    sweep: ResolvedSweep,
    planned: PlannedUnit,
    cache: CheckpointCache,
    *,
    dtype: str | None = None,
    device: str = "cpu",
) -> Iterator[tuple[PreTrainedModel, Tensor]]:
    """Fetch and load one checkpoint and encode the probe for it, for the length of a block.

    The checkpoint is fetched as a sweep fetches it: into the request's cache, within its bound, and removed
    after the block where that bound asks for it.

    Args:
        sweep: the resolved request; its probe is encoded by the tokenizer that the request names.
        planned: one of its units.
        cache: where checkpoints of the hub go.
        dtype: of the weights; None: the request's.
        device: where torch puts the model and the token ids.

    Yields:
        The model in evaluation mode, and the probe's token ids, int64, shape (sequences, n).

    Raises:
        CheckpointError: the checkpoint cannot be fetched or loaded, does not fit the probe, or memory runs
            out while it is loaded or inside the block.
    """
    label = planned.unit.checkpoint.label
    with _out_of_memory_reported(label), Prefetch([planned], cache) as supply:
        for delivery in supply:
            try:
                if isinstance(delivery.result, CheckpointError):
                    raise delivery.result
                path = delivery.result.path
                model = load_model(path, dtype=dtype or planned.unit.dtype, device=device)
                facts = model_facts(model)
                tokenizer = None if sweep.source.ids else load_tokenizer(tokenizer_folder(sweep.source, path))
                encoded = encode_probe(
                    sweep.probe,
                    sweep.source,
                    tokenizer,
                    vocabulary=facts.vocabulary,
                    max_positions=facts.max_positions,
                )
                yield model, torch.from_numpy(encoded.ids).to(device)
            finally:
                supply.release(delivery)


@contextmanager
def _out_of_memory_reported(label: str) -> Iterator[None]:
    """Turn running out of memory, on the host or on a GPU, into a CheckpointError of one line."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On the host torch raises a plain RuntimeError that names its allocator.
        of_host = isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)
        if not of_host and not isinstance(error, torch.OutOfMemoryError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{label}: out of memory ({reason}); reduce probe.n, or use a device with more memory"
        ) from error
