"""The archetypes of models: mean against spread over heads."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from tracker.views.figure_style import SOFT, literal, style
from tracker.views.palette import line_colours


def compare_figure(comparison: Mapping[str, Any]) -> Figure:
    """Mean spectral entropy of each model against its standard deviation over heads.

    Args:
        comparison: content of compare.json.

    Returns:
        A matplotlib figure; horizontal bars: 95 % over sequences and seeds. The dotted line parts uniform
        from specialised heads.
    """
    kinds = [each for each in comparison["archetypes"] if each["kind"]]
    halves = {
        each["model"]: each["metrics"]["spectral_entropy"]["half"] or 0.0
        for each in comparison["models"]
        if "spectral_entropy" in each["metrics"]
    }
    with style():
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for colour, each in zip(line_colours(len(kinds)) if kinds else [], kinds, strict=True):
            axes.errorbar(
                each["entropy"],
                each["entropy_over_heads"],
                xerr=halves[each["model"]],
                fmt="o",
                color=colour,
                ecolor=SOFT,
                capsize=2,
                ms=7,
            )
            axes.annotate(
                literal(each["model"]),
                (each["entropy"], each["entropy_over_heads"]),
                xytext=(6, 6),
                textcoords="offset points",
                fontsize=8,
            )
        if kinds:
            limit = kinds[0]["limits"]["entropy_over_heads"]
            axes.axhline(limit, color=SOFT, lw=0.9, ls=":")
            axes.annotate(
                "specialised above, uniform below",
                (1, limit),
                xycoords=("axes fraction", "data"),
                xytext=(-2, 3),
                textcoords="offset points",
                ha="right",
                fontsize=7.5,
                color=SOFT,
            )
            axes.set_ylim(0, 1.2 * max(limit, *(each["entropy_over_heads"] for each in kinds)))
        axes.margins(x=0.15)
        axes.set_xlabel("mean spectral entropy (nats)")
        axes.set_ylabel("standard deviation over heads (nats)")
        axes.set_title("Uniform or specialised heads")
    return figure
