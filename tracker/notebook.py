"""The Python face: a loaded model in, a measurement with tables and a figure out."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracker.given_model import request_for
from tracker.measure import measure
from tracker.models.bare import bare
from tracker.models.untouched import untouched
from tracker.records import Checkpoint, Measurement, Unit
from tracker.store import TABLES, conform

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from polars import DataFrame


@dataclass(frozen=True)
class TrackedMeasurement(Measurement):
    """A measurement that can draw itself."""

    def figure(self) -> "Figure":
        """Layer x head maps and mean spectra, as a matplotlib figure."""
        from tracker.views import measurement_figure

        return measurement_figure(self)

    def named_heads(self) -> "DataFrame":
        """Previous-token and induction heads, with the scores and limits by which they are called so."""
        from tracker.analysis.named_heads import named_heads

        return named_heads(self.heads)

    def _repr_html_(self) -> str:
        """For notebooks: main metrics, the heads that have a name, and the figure."""
        from tracker.views.measurement_html import measurement_html

        return measurement_html(self)


def track(
    model: Any,
    tokens: Any = None,
    *,
    tokenizer: Any = None,
    number: int = 16,
    n: int = 96,
    target_error: float | None = None,
    **options: Any,
) -> TrackedMeasurement:
    """Measures a loaded Hugging Face causal language model, as it is.

    What the measurement changes (attention implementation, training mode, random states) is put back
    after it.

    Args:
        model: any transformers causal language model whose attention can be read.
        tokens: token ids, shape (sequences, n); None: the default probe, through ``tokenizer``.
        tokenizer: the model's own; needed where no tokens are given.
        number, n: sequences and tokens per sequence of the default probe; n at most the model's positions.
        target_error: relative standard error of the means at which no more sequences are measured.
        options: any field of ``Conventions``, for example ``align="gather"``.

    Returns:
        ``.heads``, ``.layers``, ``.sequences``, ``.summary`` as polars dataframes, ``.named_heads()``
        and ``.figure()``. At the end of a notebook's cell it shows itself, with its figure.

    Raises:
        RequestError: no transformers model, neither tokens nor a tokenizer, tokens of another shape, or an
            unknown option.
        CheckpointError: the model's attention cannot be measured, or it has too few positions.

    Example:
        >>> import tracker
        >>> from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
        >>> shape = dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
        >>> model = GPTNeoXForCausalLM(GPTNeoXConfig(intermediate_size=64, **shape))
        >>> measured = tracker.track(model, [[token % 64 for token in range(96)]] * 4)
        >>> measured.heads.height, measured.summary["n_sequences"].item()
        (8, 4)
    """
    model = bare(model)
    request = request_for(
        model, tokens, tokenizer=tokenizer, number=number, n=n, target_error=target_error, **options
    )
    name = Path(getattr(model.config, "_name_or_path", "")).name or type(model).__name__
    checkpoint = Checkpoint("notebook", name, 0, 0, "folder", name, name)
    unit = Unit(checkpoint, request.probe, request.conventions, request.dtype)
    with untouched(model):
        found = measure(unit, model.eval(), request.tokens)
    return TrackedMeasurement(
        *(conform(table, getattr(found, table), unit.conventions.metrics) for table in TABLES)
    )
