"""The dashboard: one self-contained HTML file that asks no other machine for anything."""

import base64
import hashlib
import os
import re
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from tracker.atomic import save_file
from tracker.errors import StoreError
from tracker.store import Results
from tracker.views.data import dashboard_data
from tracker.views.encode import json_for_html

PAGE = Path(__file__).parent / "page"
SCRIPTS = (
    "core", "queue", "linked", "axis", "overview", "trajectories", "transitions", "maps", "plane", "spectrum",
    "why", "roles", "encodings", "scale", "paper", "audit", "provenance", "live", "main",
)  # fmt: skip
"""Parts of the page's script, in the order in which they run inside one function."""


def write_dashboard(
    results: Results, analysis: Mapping[str, Any] | None, path: str | os.PathLike[str]
) -> Path:
    """Write the dashboard of a store.

    Args:
        results: an opened store.
        analysis: content of analysis.json, or None.
        path: the HTML file to write; it is replaced whole or not at all.

    Returns:
        The path written.

    Raises:
        StoreError: the store cannot be read, or the file cannot be written.
    """
    path = Path(path)
    page = render_page(dashboard_data(results, analysis))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(path, lambda new: new.write_text(page, encoding="utf-8", newline=""))
    except OSError as error:
        raise StoreError(f"cannot write the dashboard to {path}: {error}; free or change it") from error
    return path


def render_page(data: dict[str, Any], *, served: bool = False) -> str:
    """Render the page as text.

    Args:
        data: ``dashboard_data``'s.
        served: whether it may ask the server that it comes from.
    """
    plotly, own = get_plotlyjs(), _inline_script(own_script())
    parts = {
        "csp": content_policy([plotly, own], served=served),
        "css": (PAGE / "dashboard.css").read_text(encoding="utf-8"),
        "data": json_for_html(data),
        "plotly": packed_plotly(),
        "script": own,
    }
    page = (PAGE / "dashboard.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], page)


@cache
def packed_plotly() -> str:
    """Return Plotly's JavaScript as base64 of zlib: 2.0 MB instead of 4.8."""
    return base64.b64encode(zlib.compress(get_plotlyjs().encode(), 9)).decode()


def own_script() -> str:
    """Return the page's own JavaScript: its parts inside one function, so that it leaves no global names."""
    parts = [(PAGE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    return "(() => {\n'use strict';\n" + "\n".join(parts) + "\n})();\n"


def content_policy(scripts: list[str], *, served: bool = False) -> str:
    """Return a Content-Security-Policy under which exactly these inline scripts run.

    Nothing is fetched, or only from the page's own server."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    connect = "; connect-src 'self'" if served else ""
    # Plotly writes style attributes and a style element; images are its own SVG exports.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        f"base-uri 'none'; form-action 'none'{connect}"
    )


def _inline_script(text: str) -> str:
    # The parser reads line ends as \n, and the policy's digest is of what it read.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")
