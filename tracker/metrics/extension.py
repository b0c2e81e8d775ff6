"""Metrics of a user's own: what is registered in this process, and how a store remembers what they mean.

``tracker.metric`` fills it. Columns, schemas, W&B keys and the dashboard's labels follow from it.
"""

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tracker.atomic import update_json
from tracker.errors import RequestError, unknown_value
from tracker.metrics.registry import BY_NAME, DESCRIBED, METRICS, Metric

FILE = "metrics.json"
NAME = re.compile(r"[a-z][a-z0-9_]*")
TAKEN = {metric.name for metric in METRICS} | {
    "suite", "model", "seed", "step", "probe", "conventions", "status", "layer", "head", "sequence",
    "spectrum", "wavelet_energy", "key", "reason", "commit", "repo", "revision", "dtype", "device", "seconds",
    "tokens_seen", "params_total", "params_non_embedding", "n_layers", "n_heads", "d_model", "d_head",
    "rotary_dims", "position_encoding", "causal", "n_sequences", "n_tokens", "token_digest",
    "tracker_version", "peak_bytes", "undefined_rows",
}  # fmt: skip
"""Every column that the store's tables have without users' own."""


@dataclass(frozen=True)
class OwnMetric:
    """A registered metric and the function that works it out."""

    metric: Metric
    function: Callable[[Any], Any]
    identity: str
    """``name-digest`` of the function's source and its description: part of the conventions."""

    @property
    def columns(self) -> list[str]:
        """Its columns in the table of heads, without their spreads."""
        name = self.metric.name
        return [name, f"averaged_{name}"] if self.metric.averaged else [name]


_registered: dict[str, OwnMetric] = {}


def register(own: OwnMetric) -> None:
    """Adds a metric to all that is measured from now on; one of the same name is replaced.

    Raises:
        RequestError: the name is no name for a column, or is taken.
    """
    name = own.metric.name
    ending = name.endswith(("_std", "_q25", "_q75")) or name.startswith("averaged_")
    if not NAME.fullmatch(name) or ending:
        raise unknown_value(
            "metric", name, "a name of small letters, digits and _, without averaged_, _std, _q25, _q75"
        )
    if name in TAKEN:
        raise RequestError(f"metric={name}: a column of that name exists already; choose another name")
    _registered[name] = own
    describe([own.metric])


def forget(name: str) -> None:
    """Takes a metric out again: it is not measured any more. What is stored stays readable."""
    _registered.pop(name, None)


def registered_identities() -> tuple[str, ...]:
    """Every registered metric, as the conventions name it, in the order of their names."""
    return tuple(_registered[name].identity for name in sorted(_registered))


def own_metrics(identities: Iterable[str]) -> list[OwnMetric]:
    """The metrics that conventions name.

    Raises:
        RequestError: one is not registered in this process, or is another one of the same name.
    """
    found = []
    for identity in identities:
        own = _registered.get(identity.rpartition("-")[0])
        if own is None or own.identity != identity:
            raise RequestError(
                f"metric {identity}: not registered in this process as it was; import the file that "
                "registers it, or give it to a sweep as spectrum.metrics=[FILE.py]"
            )
        found.append(own)
    return found


def own_columns(identities: Iterable[str]) -> list[str]:
    """Head columns of the metrics that conventions name."""
    return [column for own in own_metrics(identities) for column in own.columns]


def load_metrics(files: Iterable[str | Path]) -> None:
    """Runs Python files that register metrics: files of the user's own, never any that were fetched.

    Raises:
        RequestError: a file is not there, breaks, or registers nothing.
    """
    for file in files:
        path = Path(file).resolve()
        if not path.is_file() or path.suffix != ".py":
            raise unknown_value("spectrum.metrics", file, "Python files that exist")
        name = f"tracker_own_metrics_{path.stem}"
        before = dict(_registered)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except RequestError:
            raise
        except Exception as error:
            raise RequestError(f"spectrum.metrics={file}: {type(error).__name__}: {error}") from error
        if before == _registered:
            raise RequestError(
                f"spectrum.metrics={file}: registers no metric; decorate one with @tracker.metric"
            )


def describe(metrics: Iterable[Metric]) -> None:
    """Makes titles, units and meanings of metrics known, whether or not they can be measured here."""
    for metric in metrics:
        DESCRIBED[metric.name] = BY_NAME[metric.name] = metric


def write_descriptions(folder: Path, label: str, identities: Iterable[str]) -> None:
    """Puts what the metrics of some conventions mean into a store, before their first record.

    Raises:
        OSError: the store cannot be written.
    """
    told = [asdict(own.metric) for own in own_metrics(identities)]
    told = [{name: repr(v) if v in _INFINITE else v for name, v in each.items()} for each in told]
    if _read(folder).get(label) != told:
        update_json(folder / FILE, lambda known: known | {label: told})


_INFINITE = (float("inf"), float("-inf"))


def read_descriptions(folder: Path, labels: Iterable[str] | None = None) -> None:
    """Makes known what a store says of its own metrics.

    Args:
        folder: the store's.
        labels: of conventions; None: of all that are in it. Of two meanings of one name the last counts.
    """
    wanted = None if labels is None else set(labels)
    for label, told in _read(folder).items():
        if wanted is None or label in wanted:
            known = [metric for each in told if (metric := _metric(each)) is not None]
            describe(metric for metric in known if metric.name not in TAKEN)


def _read(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _metric(told: dict[str, Any]) -> Metric | None:
    try:
        bounds = {name: float(told[name]) for name in ("low", "high")}
        return Metric(**{**told, **bounds})
    except (TypeError, ValueError, KeyError):
        return None
