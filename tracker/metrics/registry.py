"""The registry of metrics: built-in and custom ones, their columns, titles and descriptions.

A registry is a value. This process's holds the built-in metrics and those that ``tracker.metric`` has
registered; ``Results.registry`` holds what a store says of its own, and two stores may differ.
"""

import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tracker.atomic import update_json
from tracker.errors import RequestError, unknown_value
from tracker.metrics.table import INFINITY, METRICS, OPTIONS, Metric
from tracker.side_files import read_typed, set_damaged_aside

FILE = "metrics.json"
"""In a store: what the custom metrics of each label of conventions mean."""
DESCRIPTIONS = dict[str, list[dict[str, Any]]]
"""Content of ``FILE``: by label of the conventions, each metric's description."""
BY_NAME: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in METRICS})
"""Built-in metrics."""
TAKEN = {metric.name for metric in METRICS} | {
    "suite", "model", "seed", "step", "probe", "conventions", "status", "layer", "head", "sequence",
    "spectrum", "wavelet_energy", "key", "reason", "commit", "repo", "revision", "dtype", "device", "seconds",
    "tokens_seen", "params_total", "params_non_embedding", "n_layers", "n_heads", "d_model", "d_head",
    "rotary_dims", "position_encoding", "causal", "n_sequences", "n_tokens", "local_span", "prefix_block",
    "token_digest", "tracker_version", "peak_bytes", "undefined_rows", "attention_layers",
    "rotary_profile_q", "rotary_profile_k",
}  # fmt: skip
"""Every column that the store's tables have without custom metrics."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SPREADS = ("_std", "_q25", "_q75")


@dataclass(frozen=True)
class Registry:
    """The metrics that columns can belong to: built-in ones, then custom ones; never changed.

    Example:
        >>> mine = Metric(name="mine", title="Mine", source="here", meaning="an example")
        >>> Registry().with_custom([mine]).title_of("averaged_mine")
        'Mine (averaged)'
    """

    custom: tuple[Metric, ...] = ()

    def with_custom(self, metrics: Iterable[Metric]) -> "Registry":
        """Return a registry that has these too; one of a known custom name replaces it."""
        known = {metric.name: metric for metric in self.custom}
        return Registry(tuple((known | {metric.name: metric for metric in metrics}).values()))

    @cached_property
    def by_name(self) -> Mapping[str, Metric]:
        """Every metric by its name."""
        return {**BY_NAME} | {metric.name: metric for metric in self.custom}

    def metric_of(self, column: str) -> Metric:
        """Return the metric that a column belongs to, for plain and ``averaged_`` columns alike.

        Raises:
            KeyError: the column is no metric's.
        """
        return self.by_name[column.removeprefix("averaged_")]

    def title_of(self, column: str) -> str:
        """Return the label for people: the metric's title, marked where the signal is the averaged one."""
        mark = " (averaged)" if column.startswith("averaged_") else ""
        return self.metric_of(column).title + mark

    def columns(self, *levels: str, pooled: bool = True) -> list[str]:
        """Return the metric columns of these levels, plain ones first, without those of options."""
        metrics = [each for each in self.by_name.values() if each.level in levels and not each.option]
        metrics = [metric for metric in metrics if pooled or not metric.pooled]
        plain = [metric.name for metric in metrics]
        return plain + [f"averaged_{metric.name}" for metric in metrics if metric.averaged]


BUILT_IN = Registry()


@dataclass(frozen=True)
class CustomMetric:
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


_registered: dict[str, CustomMetric] = {}


def process_registry() -> Registry:
    """Return the built-in metrics and those registered in this process."""
    return BUILT_IN.with_custom(each.metric for each in _registered.values())


def registry_of(columns: Iterable[str]) -> Registry:
    """Return a registry that has every custom metric that a store's table has columns of.

    Those that are not registered in this process get the name in words as title; no more is known of them.

    Args:
        columns: of the table.
    """
    known, present = process_registry(), set(columns)
    names = [name for name in columns if not name.endswith(_SPREADS) and not name.startswith("averaged_")]
    return known.with_custom(
        Metric(
            name=name, title=in_words(name), low=-INFINITY, source="custom", meaning=in_words(name),
            averaged=f"averaged_{name}" in present,
        )
        for name in names if name not in TAKEN and name not in known.by_name
    )  # fmt: skip


def in_words(name: str) -> str:
    """Return the name of a metric as a title."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def metric_of(column: str, registry: Registry | None = None) -> Metric:
    """Return the metric that a column belongs to, in a registry or, by default, in this process's.

    Raises:
        KeyError: the column is no metric's.

    Example:
        >>> metric_of("averaged_positional_entropy").unit
        'nats'
    """
    return (registry or process_registry()).metric_of(column)


def title_of(column: str, registry: Registry | None = None) -> str:
    """Return the label of a column for people, from a registry or, by default, from this process's.

    Raises:
        KeyError: the column is no metric's.

    Example:
        >>> title_of("averaged_positional_entropy")
        'Positional entropy (averaged)'
    """
    return (registry or process_registry()).title_of(column)


def is_custom(column: str) -> bool:
    """Return whether a metric column is that of a custom metric."""
    return column.removeprefix("averaged_") not in BY_NAME


def _chosen(registry: Registry | None, own: bool) -> Registry:
    return (registry or process_registry()) if own else BUILT_IN


def head_columns(registry: Registry | None = None, *, own: bool = True) -> list[str]:
    """Return the metric columns that the heads table always has, plain ones first.

    ``own``: with custom metrics.
    """
    return _chosen(registry, own).columns("head")


def layer_columns() -> list[str]:
    """Return the metric columns that the layers table always has."""
    return BUILT_IN.columns("layer")


def sequence_columns(registry: Registry | None = None, *, own: bool = True) -> list[str]:
    """Return the metric columns of the sequences table: means over heads, then loss and in_context_score."""
    return _chosen(registry, own).columns("head", pooled=False) + BUILT_IN.columns("sequence")


def checkpoint_columns(registry: Registry | None = None, *, own: bool = True) -> list[str]:
    """Return every metric column: each is summarised in the checkpoint table."""
    measured = head_columns(registry, own=own) + layer_columns() + BUILT_IN.columns("sequence")
    return measured + option_columns()


def option_columns(*options: str, level: str | None = None) -> list[str]:
    """Return the metric columns that only fields of ``spectrum`` have measured.

    Args:
        options: those fields; none: all of them.
        level: of the metrics; None: any.
    """
    chosen = [metric for metric in METRICS if metric.option in (options or OPTIONS)]
    return [metric.name for metric in chosen if level in (None, metric.level)]


def register(custom: CustomMetric) -> None:
    """Add a metric to all that is measured from now on; one of the same name is replaced.

    Raises:
        RequestError: the name is no name for a column, or is taken.
    """
    name = custom.metric.name
    if not _NAME.fullmatch(name) or name.endswith(_SPREADS) or name.startswith("averaged_"):
        raise unknown_value(
            "metric", name, "a name of small letters, digits and _, without averaged_, _std, _q25, _q75"
        )
    if name in TAKEN:
        raise RequestError(f"metric={name}: a column of that name exists already; choose another name")
    _registered[name] = custom


def forget(name: str) -> None:
    """Take a metric out again: it is not measured any more. What is stored stays readable."""
    _registered.pop(name, None)


def registered_identities() -> tuple[str, ...]:
    """Return every registered metric, as the conventions name it, in the order of their names."""
    return tuple(_registered[name].identity for name in sorted(_registered))


def custom_metrics(identities: Iterable[str]) -> list[CustomMetric]:
    """Return the metrics that conventions name.

    Raises:
        RequestError: one is not registered in this process, or is another one of the same name.
    """
    found = []
    for identity in identities:
        custom = _registered.get(identity.rpartition("-")[0])
        if custom is None or custom.identity != identity:
            raise RequestError(
                f"metric {identity}: not registered in this process as it was; import the file that "
                "registers it, or give it to a sweep as spectrum.metrics=[FILE.py]"
            )
        found.append(custom)
    return found


def load_metrics(files: Iterable[str | Path]) -> None:
    """Run Python files that register metrics: the user's files, never any that were fetched.

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


def write_descriptions(folder: Path, label: str, identities: Iterable[str]) -> None:
    """Write into a store what the metrics of some conventions mean, before their first record.

    Raises:
        OSError: the store cannot be written.
    """
    described = [asdict(custom.metric) for custom in custom_metrics(identities)]
    bounds = (INFINITY, -INFINITY)  # JSON has no infinity
    described = [{name: repr(v) if v in bounds else v for name, v in each.items()} for each in described]
    if _read(folder).get(label) != described:
        set_damaged_aside(folder / FILE, DESCRIPTIONS)
        update_json(folder / FILE, lambda known: known | {label: described})


def read_descriptions(folder: Path, labels: Iterable[str] | None = None) -> list[Metric]:
    """Read what a store says of its custom metrics.

    Args:
        folder: the store's.
        labels: of conventions; None: all that are in it.
    """
    wanted = None if labels is None else set(labels)
    chosen = [each for label, each in _read(folder).items() if wanted is None or label in wanted]
    metrics = [_metric(entry) for entries in chosen for entry in entries]
    return [metric for metric in metrics if metric is not None and metric.name not in TAKEN]


def _read(folder: Path) -> dict[str, Any]:
    return read_typed(folder / FILE, DESCRIPTIONS, {})


def _metric(entry: dict[str, Any]) -> Metric | None:
    try:
        bounds = {name: float(entry[name]) for name in ("low", "high")}
        return Metric(**{**entry, **bounds})
    except (TypeError, ValueError, KeyError):
        return None
