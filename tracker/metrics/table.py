"""The table of built-in metrics: name, title, unit, range, source and where each is recorded.

Store schemas, dashboard labels and the table of docs/metrics.md are made from it. Equations are
those of arXiv 2410.18067.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

Level = Literal["head", "layer", "sequence"]
INFINITY = float("inf")
MAX_WAVELET_SCALES = 12
"""Columns kept for wavelet entropies; 12 scales serve sequences of up to 12,287 tokens."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One measured quantity."""

    name: str
    """Of its column."""
    title: str
    """For people."""
    unit: str = ""
    low: float = 0
    high: float = INFINITY
    """The range of its values."""
    source: str
    """Equation, figure or paper."""
    meaning: str
    """One line."""
    level: Level = "head"
    """The finest table that holds it."""
    averaged: bool = False
    """Whether a second column, with the prefix ``averaged_``, holds it for the averaged signal."""
    pooled: bool = False
    """Whether it is computed over all samples of a head, so that no sequence has a value."""
    option: str = ""
    """Field of ``spectrum`` that has it measured (``weights``, ``states``); empty: always."""


# fmt: off
def _of_rows() -> Iterator[Metric]:
    """Recorded per head for the mean over rows and for the averaged signal."""
    yield Metric(name="spectral_entropy", title="Spectral entropy", unit="nats", source="eq. 7",
                 meaning="entropy of the power spectrum of an attention row")
    yield Metric(name="spectral_entropy_normalised", title="Spectral entropy / log bins", high=1,
                 source="eq. 7",
                 meaning="spectral entropy divided by its largest value; does not depend on n_fft")
    yield Metric(name="frequency_selectivity", title="Frequency selectivity", source="eq. 3",
                 meaning="strongest frequency bin over the sum of all others")
    yield Metric(name="band_power_low", title="Low-band power", unit="share", high=1, source="eq. 2",
                 meaning="share of power below a quarter of the Nyquist frequency")
    yield Metric(name="band_power_mid", title="Mid-band power", unit="share", high=1, source="eq. 2",
                 meaning="share of power from a quarter to three quarters of the Nyquist frequency")
    yield Metric(name="band_power_high", title="High-band power", unit="share", high=1, source="eq. 2",
                 meaning="share of power from three quarters of the Nyquist frequency")
    yield Metric(name="positional_entropy", title="Positional entropy", unit="nats", source="eq. 6",
                 meaning="entropy of attention over key positions")
    yield Metric(name="position_spectrum_correlation", title="Position-spectrum correlation", low=-1, high=1,
                 source="eq. 8, 9", pooled=True,
                 meaning="Pearson correlation of positional and spectral entropy over a head's samples")
    for alpha in ("0.5", "0.25"):
        yield Metric(name=f"scale_sensitivity_{alpha}", title=f"Scale sensitivity at {alpha}x", high=2,
                     source="eq. 10", meaning="1 - cosine of wavelet coefficients at full length and at "
                     f"{alpha} of the tokens")
    yield Metric(name="reconstruction_error", title="Reconstruction error", source="eq. 11",
                 meaning="relative Frobenius error of the wavelet transform there and back")
    for scale in range(MAX_WAVELET_SCALES):
        note = " (coarsest)" if scale == 0 else ""
        yield Metric(name=f"wavelet_entropy_{scale}", title=f"Wavelet entropy, scale {scale}{note}",
                     unit="nats", low=-INFINITY, source="eq. 5",
                     meaning=f"entropy of squared wavelet coefficients, scale {scale}")
    for width in (16, 32, 64):
        yield Metric(name=f"window_entropy_{width}", title=f"Window entropy, {width} tokens", high=1,
                     source="table 2",
                     meaning=f"entropy inside windows of {width} keys over its largest value")


MATRICES = {
    "q": "Wq", "k": "Wk", "v": "Wv", "o": "Wo", "mlp_in": "MLP W_in", "mlp_gate": "MLP W_gate",
    "mlp_out": "MLP W_out",
}  # fmt: skip
"""Matrices of a layer, as columns and as titles call them."""
CIRCUITS = {"qk": ("QK circuit", "Wq^T Wk"), "ov": ("OV circuit", "Wo Wv")}
"""Products of a head's matrices, as columns, titles and formulas call them."""
_STABLE, _EFFECTIVE = "Rudelson & Vershynin 2007", "Roy & Vetterli 2007"
_CIRCUITS, _ROTARY = "Elhage et al. 2021", "arXiv 2410.06205"


def _of_weights() -> Iterator[Metric]:
    """Of the weights alone: per layer of its matrices, per head of its circuits and rotary frequencies."""
    for part, matrix in MATRICES.items():
        yield Metric(name=f"stable_rank_{part}", title=f"Stable rank of {matrix}", low=1, source=_STABLE,
                     level="layer", meaning=f"sum of squared singular values of {matrix} over the largest")
        yield Metric(name=f"effective_rank_{part}", title=f"Effective rank of {matrix}", low=1,
                     source=_EFFECTIVE, level="layer",
                     meaning=f"exponential of the entropy of the singular values of {matrix} over their sum")
        yield Metric(name=f"spectral_norm_{part}", title=f"Spectral norm of {matrix}", source="covariate",
                     level="layer", meaning=f"largest singular value of {matrix}")
        yield Metric(name=f"outlier_ratio_{part}", title=f"Outlier ratio of {matrix}", low=1,
                     source="covariate", level="layer",
                     meaning=f"largest magnitude in {matrix} over the standard deviation of its entries")
    for part, (title, product) in CIRCUITS.items():
        yield Metric(name=f"stable_rank_{part}", title=f"Stable rank of the {title}", low=1,
                     source=_CIRCUITS, meaning=f"stable rank of a head's {product}")
        yield Metric(name=f"effective_rank_{part}", title=f"Effective rank of the {title}", low=1,
                     source=_CIRCUITS, meaning=f"effective rank of a head's {product}")
        yield Metric(name=f"spectral_norm_{part}", title=f"Spectral norm of the {title}", source=_CIRCUITS,
                     meaning=f"largest singular value of a head's {product}")
    for part in ("q", "k"):
        matrix = MATRICES[part]
        yield Metric(name=f"rotary_place_{part}", title=f"Mean rotary place of {matrix}", high=1,
                     source=_ROTARY, meaning=f"mean place of {matrix}'s norm among the rotary frequencies of "
                     "a head, 0 the highest, 1 the lowest; 0.5 where all have the same")
        for band in ("high", "low"):
            title = f"{band.capitalize()}est rotary band of {matrix}"
            yield Metric(name=f"rotary_{band}_{part}", title=title, unit="share", high=1, source=_ROTARY,
                         meaning=f"share of the {band}est quarter of "
                         f"rotary frequencies in the norm of a head's {matrix}")


def _of_states() -> Iterator[Metric]:
    """Of the residual stream behind each layer, in the forward pass of the probe."""
    yield Metric(name="state_effective_rank", title="Effective rank of states", low=1,
                 source="arXiv 2210.02885", level="layer",
                 meaning="effective rank of all tokens' hidden states behind a layer (RankMe)")
    yield Metric(name="state_outlier_ratio", title="Largest activation", unit="medians", low=1,
                 source="arXiv 2402.17762", level="layer",
                 meaning="largest magnitude in a sequence's hidden states behind a layer over the median one")
    yield Metric(name="state_first_norm", title="Norm of the first token", unit="others' mean",
                 source="covariate", level="layer",
                 meaning="norm of the first token's hidden state behind a layer over the others' mean norm")
    yield Metric(name="layer_sink_share", title="Sink share by layer", unit="share", high=1,
                 source="covariate", level="layer",
                 meaning="mean attention to the first token over the heads of a layer")


METRICS: tuple[Metric, ...] = (
    *(replace(metric, averaged=True) for metric in _of_rows()),
    Metric(name="local_share", title="Local share", unit="share", high=1, source="fig. 1",
           meaning="attention on the last 16 keys up to the query"),
    Metric(name="previous_token_score", title="Previous-token score", unit="share", high=1,
           source="covariate", meaning="mean attention to the token before"),
    Metric(name="prefix_matching_score", title="Prefix-matching score", unit="share", high=1,
           source="arXiv 2209.11895", pooled=True,
           meaning="attention to the token after the earlier copy in a block written twice (induction)"),
    Metric(name="sink_share", title="Sink share", unit="share", high=1, source="covariate",
           meaning="mean attention to the first token"),
    Metric(name="learned_sink_share", title="Learned sink's share", unit="share", high=1, source="covariate",
           meaning="mean attention to a learned sink, which no token gets (gpt-oss)"),
    Metric(name="head_redundancy", title="Head redundancy", unit="cosine", low=-1, high=1, source="covariate",
           meaning="mean cosine between the attention maps of a layer's heads", level="layer"),
    Metric(name="frame_lower", title="Frame bound A", source="eq. 16", level="layer",
           meaning="smallest squared singular value of a layer's stacked attention"),
    Metric(name="frame_upper", title="Frame bound B", source="eq. 16", level="layer",
           meaning="largest squared singular value of a layer's stacked attention"),
    Metric(name="frame_ratio", title="Frame ratio A/B", high=1, source="eq. 16", level="layer",
           meaning="lower over upper frame bound; 1 is a tight frame"),
    Metric(name="admissibility", title="Admissibility", unit="share", high=1, source="eq. 16", level="layer",
           meaning="share of |Psi|^2/|w| in the lowest eighth of frequencies of the lag profile"),
    Metric(name="refinement_residual", title="Refinement residual", high=1, source="eq. 16", level="layer",
           meaning="what a four-tap two-scale relation leaves unexplained of the lag profile"),
    Metric(name="loss", title="Loss", unit="nats per token", source="covariate", level="sequence",
           meaning="cross-entropy of the next token on the probe"),
    Metric(name="in_context_score", title="In-context score", unit="nats per token", low=-INFINITY,
           source="arXiv 2209.11895", level="sequence",
           meaning="loss late in the sequence less loss early; negative: context helps"),
    *(replace(metric, option="weights", pooled=True) for metric in _of_weights()),
    *(replace(metric, option="states") for metric in _of_states()),
)
# fmt: on
OPTIONS = tuple(dict.fromkeys(metric.option for metric in METRICS if metric.option))
"""Fields of ``spectrum`` that have further metrics measured."""


def markdown_table() -> str:
    """Return the table of metrics of docs/metrics.md, one row per metric, wavelet scales as one.

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
        kept = metric.level + (", sequence" if metric.level == "head" and not metric.pooled else "")
        kept += f" ({metric.option})" if metric.option else ""
        lines.append(f"| {name} | {meaning} | {metric.unit} | {low} to {high} | {metric.source} | {kept} |")
    return "\n".join(lines)
