"""The Python interface: measure a loaded model; analyse, compare and draw a store."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from tracker.analysis.context import HEAD_COLUMNS
from tracker.checkpoints.audit.file import suspects as suspects_of
from tracker.records import Checkpoint, Measurement, Unit
from tracker.store import TABLES, Results, conform

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from polars import DataFrame


@dataclass(frozen=True)
class TrackedMeasurement(Measurement):
    """A measurement that can draw itself."""

    def __repr__(self) -> str:
        """Six lines: what was measured, the main metrics, the heads that have a name, and what to ask for."""
        from tracker.views import measurement_text

        return measurement_text(self)

    def figure(self) -> "Figure":
        """Layer x head maps and mean spectra, as a matplotlib figure."""
        from tracker.views import measurement_figure

        return measurement_figure(self)

    def named_heads(self) -> "DataFrame":
        """Previous-token and induction heads, with the scores and limits by which they are called so."""
        from tracker.analysis.roles import measured_as, named_heads

        return named_heads(self.heads, measured_as(self.checkpoint.row(0, named=True)))

    def _repr_html_(self) -> str:
        """For notebooks: main metrics, the heads that have a name, and the figure."""
        from tracker.views import measurement_html

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
    """Measure a loaded Hugging Face causal language model, as it is.

    What the measurement changes (attention implementation, training mode, random states) is put back
    after it.

    Args:
        model: any transformers causal language model whose attention can be read.
        tokens: token ids, shape (sequences, n); None: the default probe, through ``tokenizer``.
        tokenizer: the model's own, or the folder that it lies in; needed where no tokens are given.
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
    from tracker.measurement.given_model import request_for
    from tracker.measurement.measure import measure
    from tracker.models.preserve_state import preserve_state
    from tracker.models.unwrap import unwrap

    model = unwrap(model)
    request = request_for(
        model, tokens, tokenizer=tokenizer, number=number, n=n, target_error=target_error, **options
    )
    name = Path(getattr(model.config, "_name_or_path", "")).name or type(model).__name__
    checkpoint = Checkpoint("notebook", name, 0, 0, "folder", name, name)
    unit = Unit(checkpoint, request.probe, request.conventions, request.dtype)
    with preserve_state(model):
        found = measure(unit, model.eval(), request.tokens)
    return _tracked(found, unit)


def measure_attention(
    patterns: Any, *, name: str = "attention", step: int = 0, **options: Any
) -> TrackedMeasurement:
    """Measure attention that is at hand, of any model in any framework.

    What needs the model itself (loss, prefix matching, scale sensitivity) is null.

    Args:
        patterns: attention of every layer, rows of queries that sum to 1 over keys: a sequence of arrays or
            tensors of shape (sequences, heads, n, n) such as ``output_attentions`` gives, (heads, n, n) of
            one sequence, an array of all layers, or TransformerLens's cache.
        name: of the model, in the tables.
        step: of training, in the tables.
        options: any field of ``Conventions``, as for ``track``.

    Returns:
        As ``track``.

    Raises:
        RequestError: no layer, another shape, or an unknown option.
        CheckpointError: rows that are not finite or do not sum to 1; names layer and head.

    Example:
        >>> import numpy as np, tracker
        >>> uniform = np.tril(np.ones((96, 96))) / np.arange(1, 97)[:, None]
        >>> measured = tracker.measure_attention([np.stack([uniform] * 4)] * 2)
        >>> measured.heads.height, round(measured.heads["positional_entropy"][0], 2)
        (8, 3.6)
    """
    from tracker.measurement.given_attention import layers_of, measured_attention, probe_of
    from tracker.measurement.given_model import conventions_for

    layers = layers_of(patterns)
    checkpoint = Checkpoint("notebook", name, 0, step, "folder", name, name)
    kind = str(layers[0].dtype).removeprefix("torch.")
    unit = Unit(checkpoint, probe_of(layers), conventions_for(options), kind)
    return _tracked(measured_attention(layers, unit), unit)


def _tracked(found: Measurement, unit: Unit) -> TrackedMeasurement:
    return TrackedMeasurement(
        *(conform(table, getattr(found, table), unit.conventions.metrics) for table in TABLES)
    )


def analyse(results: Results, *, suspects: bool = False) -> dict[str, Any]:
    """Phases per run, what moves with each change, thresholds over size: as ``tracker analyse`` finds them.

    Args:
        results: an opened store.
        suspects: whether checkpoints that the audit calls suspect take part.

    Returns:
        The content of ``analysis.json``, without the alerts; ``report["summary"]`` says it in sentences.

    Raises:
        StoreError: a table of the store cannot be read.

    Example:
        >>> import tempfile, tracker.store
        >>> results = tracker.store.Results(Path(tempfile.gettempdir()), ())
        >>> tracker.analyse(results)["phases"]
        []
    """
    from tracker.analysis import analyse as analysed

    checkpoints = results.checkpoints()
    left_out = {} if suspects else suspects_of(results.folder).among(checkpoints.iter_rows(named=True))
    heads = results.heads(HEAD_COLUMNS)
    return analysed(checkpoints, results.sequences(), heads, suspects=left_out).to_dict()


def compare(
    results: Results, *, at: str = "end", step: int | None = None, tokens: int | None = None
) -> dict[str, Any]:
    """Models side by side, and against the paper's tables: as ``tracker compare`` finds them.

    Args:
        results: an opened store.
        at: ``end``, ``step`` (with ``step``) or ``tokens`` (with ``tokens``).
        step, tokens: at which checkpoint.

    Returns:
        The content of ``compare.json``; ``report["sentences"]`` says it in words.

    Raises:
        RequestError: nothing is measured, or there is no checkpoint of that choice.
    """
    from tracker.commands.comparison import compare_models
    from tracker.config import Compare

    found = suspects_of(results.folder).among(results.checkpoints().iter_rows(named=True))
    return compare_models(results, Compare(at=at, step=step, tokens=tokens), found).to_dict()


def figures(results: Results, report: Mapping[str, Any] | None = None) -> "dict[str, Figure]":
    """Every figure of a store by name: phases, scale, heads, spectrograms, lead-lag, checkpoints ...

    Args:
        results: an opened store.
        report: of ``analyse``; None: figures without phases and thresholds.
    """
    from tracker.views.figure_files import drawn_views

    return {name: figure for name, figure, _ in drawn_views(results, report)}


def figure_data(results: Results, report: Mapping[str, Any] | None = None) -> dict[str, pl.DataFrame]:
    """What each of ``figures`` draws, by name, as polars tables.

    Args:
        results, report: as for ``figures``.
    """
    from tracker.views.figure_files import drawn_views

    return {name: table for name, _, table in drawn_views(results, report)}


def dashboard(
    results: Results, path: str | os.PathLike[str], report: Mapping[str, Any] | None = None
) -> Path:
    """Writes the dashboard of a store as one HTML file.

    Args:
        results: an opened store.
        path: the file.
        report: of ``analyse``; None: it is analysed first.

    Returns:
        The path written.

    Raises:
        StoreError: the store cannot be read, or the file cannot be written.
    """
    from tracker.views import write_dashboard

    return write_dashboard(results, analyse(results) if report is None else report, path)
