"""One measurement: its figure, and what a notebook shows of it."""

import base64
import io
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tracker.analysis.roles import NAMED, measured_as, named_heads
from tracker.errors import counted
from tracker.metrics.registry import metric_of, title_of
from tracker.records import Measurement
from tracker.store import SPECTRUM_BANDS
from tracker.views.figure_maps import draw_map
from tracker.views.figure_style import empty_figure, literal, style
from tracker.views.palette import line_colours

MEASURED = ("spectral_entropy", "frequency_selectivity", "band_power_low", "previous_token_score")
SHOWN = (
    "loss", "spectral_entropy", "frequency_selectivity", "band_power_low", "positional_entropy",
    "averaged_scale_sensitivity_0.5", "previous_token_score", "prefix_matching_score",
)  # fmt: skip
DOTS_PER_INCH = 110


def measurement_figure(measurement: Measurement) -> Figure:
    """Draw layer x head maps of four metrics and the mean spectrum per layer, of one checkpoint.

    Args:
        measurement: the four tables of one measured checkpoint.

    Returns:
        A matplotlib figure.
    """
    heads = measurement.heads
    metrics = [name for name in MEASURED if name in heads.columns and heads[name].null_count() < heads.height]
    if not metrics:
        return empty_figure("This measurement holds no head.")
    with style():
        figure = Figure(figsize=(9.2, 5.6), layout="constrained")
        grid = figure.add_gridspec(2, 3, width_ratios=[1, 1, 1.15])
        for index, name in enumerate(metrics):
            axes = figure.add_subplot(grid[index // 2, index % 2])
            image = draw_map(axes, heads, name)
            figure.colorbar(image, ax=axes, pad=0.02, fraction=0.06).outline.set_visible(False)  # type: ignore[operator]
            axes.set_title(title_of(name))
            axes.set_ylabel("layer")
        if "spectrum" in heads.columns:
            _spectrum_panel(figure.add_subplot(grid[:, 2]), heads)
        figure.suptitle(literal(_name_of(heads.row(0, named=True))), x=0.01, ha="left", fontsize=11)
    return figure


def _name_of(row: Mapping[str, Any]) -> str:
    named = [str(row[key]) for key in ("suite", "model") if row.get(key) is not None]
    return ", ".join([*named, f"step {row['step']}"] if row.get("step") is not None else named)


def _spectrum_panel(axes: Axes, heads: pl.DataFrame) -> None:
    spectrum = pl.col("spectrum").list
    bands = [spectrum.get(band, null_on_oob=True).mean().alias(str(band)) for band in range(SPECTRUM_BANDS)]
    means = heads.group_by("layer").agg(bands).sort("layer")
    middle = (np.arange(SPECTRUM_BANDS) + 0.5) / SPECTRUM_BANDS
    for colour, row in zip(line_colours(means.height), means.iter_rows(), strict=True):
        outer = row[0] in (means["layer"][0], means["layer"][-1])
        shares = 100 * np.array(row[1:], dtype=float)
        axes.plot(middle, shares, color=colour, label=f"layer {row[0]}" if outer else None)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:g} %")
    axes.yaxis.set_minor_formatter(lambda share, _: f"{share:g}" if f"{share:e}"[0] in "25" else "")
    axes.set_title("Mean spectrum per layer")
    axes.set_xlabel("frequency (1 = Nyquist)")
    axes.set_ylabel("share of power in each of 16 bands")
    axes.legend(frameon=False, loc="best")


def measurement_text(measurement: Measurement) -> str:
    """Say in six lines what was measured, what came out, and what can be asked of it."""
    row = measurement.summary.row(0, named=True)
    known = [f"{title_of(name).lower()} {row[name]:.3g}" for name in SHOWN if row.get(name) is not None]
    half = -(-len(known) // 2)
    tables = ("heads", "layers", "sequences")
    sizes = ", ".join(f".{name} ({counted(getattr(measurement, name).height, 'row')})" for name in tables)
    lines = (
        _measured_on(row),
        ", ".join(known[:half]),
        ", ".join(known[half:]),
        " ".join(head_sentences(measurement)),
        f"{sizes} and .summary are polars tables",
        ".named_heads() gives the heads that have a name, .figure() draws",
    )
    return "\n".join(lines)


def _measured_on(row: Mapping[str, Any]) -> str:
    return (
        f"{row['model']}: {counted(row['n_layers'], 'layer')} of {counted(row['n_heads'], 'head')}, "
        f"{counted(row['n_sequences'], 'sequence')} of {row['n_tokens']} tokens"
    )


def measurement_html(measurement: Measurement) -> str:
    """Render a measurement as self-contained HTML for a notebook; every text in it is escaped."""
    row = measurement.summary.row(0, named=True)
    head = _measured_on(row)
    shown = [name for name in SHOWN if row.get(name) is not None]
    cells = "".join(_metric(name, row[name], row[f"{name}_std"]) for name in shown)
    heads = "".join(f"<p>{escape(sentence)}</p>" for sentence in head_sentences(measurement))
    picture = base64.b64encode(_png(measurement)).decode()
    return (
        f"<div><p><b>{escape(head)}</b></p><table><thead><tr><th>metric</th><th>mean</th>"
        f"<th>standard deviation</th><th>unit</th></tr></thead><tbody>{cells}</tbody></table>{heads}"
        f'<img alt="Layer by head maps and mean spectra" style="max-width:100%" '
        f'src="data:image/png;base64,{picture}">'
        "<p>.heads, .layers, .sequences, .summary are polars tables; .figure() draws this.</p></div>"
    )


def head_sentences(measurement: Measurement) -> list[str]:
    """Name the previous-token and induction heads, or say that there is none."""
    found = named_heads(measurement.heads, measured_as(measurement.checkpoint.row(0, named=True)))
    sentences = []
    for name, column in ((role.name, role.column) for role in NAMED):
        rows = found.filter(name=name.replace("-", " ")).to_dicts()
        if rows:
            named = ", ".join(f"layer {r['layer']} head {r['head']} ({r['score']:.2f})" for r in rows)
            sentences.append(f"{name.capitalize()} heads (from {rows[0]['limit']:.2g}): {named}.")
        elif measurement.heads[column].count():
            most = measurement.heads[column].max()
            sentences.append(f"No {name} head: the largest {title_of(column).lower()} is {most:.2g}.")
    return sentences


def _metric(name: str, mean: float, spread: float | None) -> str:
    sd = "" if spread is None else f"{spread:.3g}"
    cells = (title_of(name), f"{mean:.4g}", sd, metric_of(name).unit)
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _png(measurement: Measurement) -> bytes:
    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Software": None}
    measurement_figure(measurement).savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata=metadata)
    return buffer.getvalue()
