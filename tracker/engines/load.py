"""One checkpoint of a request, loaded to be looked at beyond its measurement."""

from typing import Any

import torch

from tracker.checkpoints import fetch
from tracker.measurement.probe import encode_probe, load_tokenizer, tokenizer_folder
from tracker.models import load_model, model_facts
from tracker.planning.resolve import ResolvedSweep
from tracker.records import Checkpoint


def load_with_probe(surveyed: ResolvedSweep, checkpoint: Checkpoint, dtype: str) -> tuple[Any, Any]:
    """A checkpoint as a model, and the probe's token ids for it, an int64 tensor of shape (S, n).

    Raises:
        CheckpointError: it cannot be fetched or loaded, or does not fit the probe.
    """
    path = fetch(checkpoint).path
    model = load_model(path, dtype=dtype)
    facts = model_facts(model)
    source = surveyed.source
    encoded = encode_probe(
        surveyed.probe, source, None if source.ids else load_tokenizer(tokenizer_folder(source, path)),
        vocabulary=facts.vocabulary, max_positions=facts.max_positions,
    )  # fmt: skip
    return model, torch.from_numpy(encoded.ids)
