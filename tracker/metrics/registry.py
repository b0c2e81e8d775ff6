"""The one table of metrics: names, units, ranges and sources of every column that tracker measures.

Store schemas, dashboard labels and the README's table are made from it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["head", "layer", "sequence"]
INFINITY = float("inf")
MAX_WAVELET_SCALES = 12
"""Columns kept for wavelet entropies; 12 scales serve sequences of up to 12,287 tokens."""


@dataclass(frozen=True)
class Metric:
    """One measured quantity.

    ``level`` is the finest table that holds it; ``averaged`` says that a second column with the prefix
    ``averaged_`` holds it for the averaged signal; ``pooled`` marks those computed over all samples of a
    head, which therefore have no value per sequence.
    """

    name: str
    title: str
    unit: str
    low: float
    high: float
    source: str
    meaning: str
    level: Level = "head"
    averaged: bool = False
    pooled: bool = False


def _spectral() -> Iterator[Metric]:
    yield Metric(
        "spectral_entropy",
        "Spectral entropy",
        "nats",
        0,
        INFINITY,
        "eq. 7",
        "entropy of the power spectrum of an attention row",
        averaged=True,
    )
    yield Metric(
        "spectral_entropy_normalised",
        "Spectral entropy / log bins",
        "",
        0,
        1,
        "eq. 7",
        "spectral entropy divided by its largest value; does not depend on n_fft",
        averaged=True,
    )
    yield Metric(
        "frequency_selectivity",
        "Frequency selectivity",
        "",
        0,
        INFINITY,
        "eq. 3",
        "strongest frequency bin over the sum of all others",
        averaged=True,
    )
    yield Metric(
        "band_power_low",
        "Low-band power",
        "share",
        0,
        1,
        "eq. 2",
        "share of power below a quarter of the Nyquist frequency",
        averaged=True,
    )
    yield Metric(
        "band_power_mid",
        "Mid-band power",
        "share",
        0,
        1,
        "eq. 2",
        "share of power from a quarter to three quarters of the Nyquist frequency",
        averaged=True,
    )
    yield Metric(
        "band_power_high",
        "High-band power",
        "share",
        0,
        1,
        "eq. 2",
        "share of power from three quarters of the Nyquist frequency",
        averaged=True,
    )


def _position_and_scale() -> Iterator[Metric]:
    yield Metric(
        "positional_entropy",
        "Positional entropy",
        "nats",
        0,
        INFINITY,
        "eq. 6",
        "entropy of attention over key positions",
        averaged=True,
    )
    yield Metric(
        "position_spectrum_correlation",
        "Position-spectrum correlation",
        "",
        -1,
        1,
        "eq. 8, 9",
        "Pearson correlation of positional and spectral entropy over a head's samples",
        averaged=True,
        pooled=True,
    )
    for alpha in ("0.5", "0.25"):
        yield Metric(
            f"scale_sensitivity_{alpha}",
            f"Scale sensitivity at {alpha}x",
            "",
            0,
            2,
            "eq. 10",
            f"1 - cosine of wavelet coefficients at full length and at {alpha} of the tokens",
            averaged=True,
        )
    yield Metric(
        "reconstruction_error",
        "Reconstruction error",
        "",
        0,
        INFINITY,
        "eq. 11",
        "relative Frobenius error of the wavelet transform there and back",
        averaged=True,
    )


def _wavelet_and_window() -> Iterator[Metric]:
    for scale in range(MAX_WAVELET_SCALES):
        note = " (coarsest)" if scale == 0 else ""
        yield Metric(
            f"wavelet_entropy_{scale}",
            f"Wavelet entropy, scale {scale}{note}",
            "nats",
            -INFINITY,
            INFINITY,
            "eq. 5",
            f"entropy of squared wavelet coefficients, scale {scale}",
            averaged=True,
        )
    for width in (16, 32, 64):
        yield Metric(
            f"window_entropy_{width}",
            f"Window entropy, {width} tokens",
            "",
            0,
            1,
            "table 2",
            f"entropy inside windows of {width} keys over its largest value",
            averaged=True,
        )


def _covariates() -> Iterator[Metric]:
    yield Metric(
        "local_share", "Local share", "share", 0, 1, "fig. 1", "attention on the last 16 keys up to the query"
    )
    yield Metric(
        "previous_token_score",
        "Previous-token score",
        "share",
        0,
        1,
        "covariate",
        "mean attention to the token before",
    )
    yield Metric(
        "prefix_matching_score",
        "Prefix-matching score",
        "share",
        0,
        1,
        "arXiv 2209.11895",
        "attention to the token after the earlier copy in a block written twice (induction)",
        pooled=True,
    )
    yield Metric("sink_share", "Sink share", "share", 0, 1, "covariate", "mean attention to the first token")


def _layers() -> Iterator[Metric]:
    yield Metric(
        "head_redundancy",
        "Head redundancy",
        "cosine",
        -1,
        1,
        "covariate",
        "mean cosine between the attention maps of a layer's heads",
        level="layer",
    )
    yield Metric(
        "frame_lower",
        "Frame bound A",
        "",
        0,
        INFINITY,
        "eq. 16",
        "smallest squared singular value of a layer's stacked attention",
        level="layer",
    )
    yield Metric(
        "frame_upper",
        "Frame bound B",
        "",
        0,
        INFINITY,
        "eq. 16",
        "largest squared singular value of a layer's stacked attention",
        level="layer",
    )
    yield Metric(
        "frame_ratio",
        "Frame ratio A/B",
        "",
        0,
        1,
        "eq. 16",
        "lower over upper frame bound; 1 is a tight frame",
        level="layer",
    )
    yield Metric(
        "admissibility",
        "Admissibility",
        "share",
        0,
        1,
        "eq. 16",
        "share of |Psi|^2/|w| in the lowest eighth of frequencies of the lag profile",
        level="layer",
    )
    yield Metric(
        "refinement_residual",
        "Refinement residual",
        "",
        0,
        1,
        "eq. 16",
        "what a four-tap two-scale relation leaves unexplained of the lag profile",
        level="layer",
    )


def _predictions() -> Iterator[Metric]:
    yield Metric(
        "loss",
        "Loss",
        "nats per token",
        0,
        INFINITY,
        "covariate",
        "cross-entropy of the next token on the probe",
        level="sequence",
    )
    yield Metric(
        "in_context_score",
        "In-context score",
        "nats per token",
        -INFINITY,
        INFINITY,
        "arXiv 2209.11895",
        "loss late in the sequence less loss early; negative: context helps",
        level="sequence",
    )


METRICS: tuple[Metric, ...] = (
    *_spectral(),
    *_position_and_scale(),
    *_wavelet_and_window(),
    *_covariates(),
    *_layers(),
    *_predictions(),
)
BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}
DESCRIBED: dict[str, Metric] = {}
"""Custom metrics known here (``tracker.metrics.extension``); they stand in ``BY_NAME`` too."""


def metric_of(column: str) -> Metric:
    """The metric a column belongs to, for plain and ``averaged_`` columns alike.

    Raises:
        KeyError: the column is no metric's.
    """
    return BY_NAME[column.removeprefix("averaged_")]


def title_of(column: str) -> str:
    """Label for people: the metric's title, marked where the signal is the averaged one."""
    mark = " (averaged)" if column.startswith("averaged_") else ""
    return metric_of(column).title + mark


def _named(metrics: list[Metric]) -> list[str]:
    plain = [metric.name for metric in metrics]
    return plain + [f"averaged_{metric.name}" for metric in metrics if metric.averaged]


def _all(own: bool) -> list[Metric]:
    return [*METRICS, *DESCRIBED.values()] if own else list(METRICS)


def head_columns(*, own: bool = True) -> list[str]:
    """Metric columns of the heads table, plain ones first; ``own``: with those that users have added."""
    return _named([metric for metric in _all(own) if metric.level == "head"])


def layer_columns() -> list[str]:
    """Metric columns of the layers table."""
    return _named([metric for metric in METRICS if metric.level == "layer"])


def sequence_columns(*, own: bool = True) -> list[str]:
    """Metric columns of the sequences table: means over heads, then loss and in_context_score."""
    heads = [metric for metric in _all(own) if metric.level == "head" and not metric.pooled]
    return _named(heads) + _named([metric for metric in METRICS if metric.level == "sequence"])


def checkpoint_columns(*, own: bool = True) -> list[str]:
    """Every metric column: each is summarised in the checkpoint table."""
    return head_columns(own=own) + layer_columns() + _named([m for m in METRICS if m.level == "sequence"])


def markdown_table() -> str:
    """The README's table of metrics, one row per metric, wavelet scales and window widths as one.

    Example:
        >>> print(markdown_table().splitlines()[0])
        | column | what it is | unit | range | source | kept per |
    """
    lines = [
        "| column | what it is | unit | range | source | kept per |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for metric in METRICS:
        numbered = metric.name.startswith("wavelet_entropy_")
        if numbered and not metric.name.endswith("_0"):
            continue
        name = f"`{metric.name}`" + (f" ... `_{MAX_WAVELET_SCALES - 1}`" if numbered else "")
        name += " +" if metric.averaged else ""
        meaning = metric.meaning.replace("|", "\\|").replace("scale 0", "scale 0 is the coarsest")
        low, high = (f"{bound:g}".replace("inf", "∞") for bound in (metric.low, metric.high))
        kept = {"head": "head", "layer": "layer", "sequence": "sequence"}[metric.level]
        kept += ", sequence" if metric.level == "head" and not metric.pooled else ""
        lines.append(f"| {name} | {meaning} | {metric.unit} | {low} to {high} | {metric.source} | {kept} |")
    return "\n".join(lines)
