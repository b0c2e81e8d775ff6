"""A measurement as a notebook shows it: what it says in a few lines, and its figure."""

import base64
import io
from html import escape
from typing import Any

from tracker.analysis.roles import NAMED, measured_as, named_heads
from tracker.metrics.registry import metric_of, title_of
from tracker.records import Measurement
from tracker.views.figures import measurement_figure

SHOWN = (
    "loss", "spectral_entropy", "frequency_selectivity", "band_power_low", "positional_entropy",
    "averaged_scale_sensitivity_0.5", "previous_token_score", "prefix_matching_score",
)  # fmt: skip
DOTS_PER_INCH = 110


def measurement_html(measurement: Measurement) -> str:
    """The measurement as a piece of HTML that needs nothing from elsewhere; every text in it is escaped."""
    row = measurement.summary.row(0, named=True)
    head = (
        f"{row['model']}: {row['n_layers']} layers of {row['n_heads']} heads, "
        f"{row['n_sequences']} sequences of {row['n_tokens']} tokens"
    )
    shown = [name for name in SHOWN if row.get(name) is not None]
    cells = "".join(_metric(name, row[name], row[f"{name}_std"]) for name in shown)
    told = "".join(f"<p>{escape(sentence)}</p>" for sentence in head_sentences(measurement))
    picture = base64.b64encode(_png(measurement)).decode()
    return (
        f"<div><p><b>{escape(head)}</b></p><table><thead><tr><th>metric</th><th>mean</th>"
        f"<th>standard deviation</th><th>unit</th></tr></thead><tbody>{cells}</tbody></table>{told}"
        f'<img alt="Layer by head maps and mean spectra" style="max-width:100%" '
        f'src="data:image/png;base64,{picture}">'
        "<p>.heads, .layers, .sequences, .summary are polars tables; .figure() draws this.</p></div>"
    )


def head_sentences(measurement: Measurement) -> list[str]:
    """Which heads have a name, and, as plainly, that none has."""
    found = named_heads(measurement.heads, measured_as(measurement.checkpoint.row(0, named=True)))
    sentences = []
    for name, column in ((role.name.replace("-", " "), role.column) for role in NAMED):
        rows = found.filter(name=name).to_dicts()
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
