"""The typed configuration. Hydra and OmegaConf stop here: what leaves is plain dataclasses.

Each dataclass mirrors a group below ``conf/``; a value of the wrong type or name is one clear line.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pywt import wavelist  # pyright: ignore[reportAttributeAccessIssue]

from tracker.errors import RequestError, closest, unknown_value
from tracker.metrics.registry import custom_metrics, load_metrics, registered_identities
from tracker.metrics.table import OPTIONS
from tracker.records import CONVENTION_CHOICES, Conventions

PACKAGE = Path(__file__).parent
REMEASURE = ("failed", "missing", "moved", "all")
DTYPE_NAMES = ("float32", "float64", "bfloat16", "float16")
TYPES = {"Integer": "an integer", "Float": "a number", "Boolean": "true or false"}
"""OmegaConf's names of types, in words."""
STEP_CHOICES = ("paper", "log", "all", "window", "list", "refine")
COMPARE_BY = ("model", "encoding")
COMPARE_AT = ("end", "step", "tokens")
DEVICES = ("auto", "cpu", "cuda")
ENGINES = ("local", "inline", "dask")
STREAM = ("auto", "always", "never")
VALIDATIONS = ("auto", "experiments", "breaks", "analysis", "all")
Integers = list[int]
Section = TypeVar("Section")


@dataclass
class NanoSuite:
    """``suite=nano``: the embedded suite, trained by tracker itself."""

    name: str = "nano"
    models: list[str] = field(default_factory=list)
    encodings: list[str] | None = None
    """Each model is trained with each of these; one that is not rotary becomes part of its name."""
    seeds: int = 1
    train_steps: int = 1000
    batch: int = 12
    tokens: int = 128
    vocab: int = 1024
    peak_learning_rate: float = 8e-3
    repeat_share: float = 0.25
    interval: int | None = None
    dense_steps: list[int] | None = None
    threads: int | None = None


@dataclass
class PublishedSuite:
    """``suite=pythia`` and its kin, ``polypythias``: suites whose schedule is known."""

    name: str = ""
    models: list[str] = field(default_factory=list)
    seeds: list[int] | None = None
    repo_format: str | None = None


@dataclass
class HubSuite:
    """``suite=hub``, ``olmo2`` and others: repositories whose branches, tags or commits name training steps,
    or which are one checkpoint each."""

    name: str = "hub"
    repo: str | None = None
    repos: dict[str, str] | None = None
    """Model -> repository; with braces, ``{a,b}`` or ``{0..4}``, several, each of them one checkpoint."""
    branch: str | None = None
    pattern: str | None = None
    model: str | None = None
    models: list[str] | None = None
    seeds: list[int] | None = None
    stages: list[str] | None = None
    tokens_per_step: int | None = None


@dataclass
class FolderSuite:
    """``suite=folder``: checkpoints on this machine."""

    name: str = "folder"
    path: str = ""
    pattern: str | None = None
    model: str | None = None
    seed: int = 0
    step: int | None = None
    models: list[str] | None = None
    seeds: list[int] | None = None


Suite = NanoSuite | PublishedSuite | HubSuite | FolderSuite


@dataclass
class Steps:
    """Which checkpoints of a model."""

    name: str = "all"
    list: Integers | None = None
    low: int | None = None
    high: int | None = None
    budget: int = 8


@dataclass
class Probe:
    """The token sequences; ``sequences`` null means 16 in the embedded suite and 500 elsewhere."""

    name: str = "default"
    n: int = 96
    sequences: int | None = None
    target_error: float | None = None
    loss: bool = True
    seed: int = 0
    bos: bool = False
    text: str | None = None
    dataset: str | None = None
    file: str | None = None
    revision: str = "main"
    field: str = "text"
    ids: str | None = None
    tokenizer: str | None = None


@dataclass
class Spectrum:
    """How to measure: ``records.Conventions``, whose fields these are, and what else (``table.OPTIONS``)."""

    preset: str = "paper"
    window: str = "hann"
    n_fft: int | None = None
    wavelet: str = "db2"
    mode: str = "symmetric"
    alphas: list[float] = field(default_factory=lambda: [0.5, 0.25])
    sample: str = "stride"
    align: str = "interpolate"
    averaging: str = "received"
    windows: list[int] = field(default_factory=lambda: [16, 32, 64])
    span: int = 16
    queries: int | None = None
    block: int = 50
    theory_tokens: int = 96
    metrics: list[str] = field(default_factory=list)
    """Python files that register custom metrics."""
    weights: bool = False
    states: bool = False


@dataclass
class Engine:
    """What runs the units."""

    name: str = "local"
    workers: int | None = None
    threads: int | None = None
    stream: str = "auto"
    prefetch: int = 2
    timeout: float | None = None
    retries: int = 2
    recycle_gb: float | None = 4.0
    address: str | None = None
    job: dict[str, Any] | None = None
    min_workers: int | None = None
    batch: int = 4
    resources: dict[str, float] | None = None
    wait: float = 10.0


@dataclass
class Cache:
    """Where checkpoints of the hub lie on this machine, and how much they may take; null: no bound."""

    folder: str | None = None
    max_gb: float | None = None


@dataclass
class Forecast:
    """Assumptions used by ``tracker plan``; null: what the store has recorded."""

    bandwidth: float | None = None
    speed: float | None = None


@dataclass
class View:
    """Which results are shown, where a store holds several probes or conventions, and on which port."""

    probe: str | None = None
    conventions: str | None = None
    suite: str | None = None
    suspects: bool = False
    port: int = 0


@dataclass
class Compare:
    """What ``tracker compare`` compares."""

    by: str = "model"
    at: str = "end"
    step: int | None = None
    tokens: int | None = None
    other: str | None = None
    other_probe: str | None = None
    other_conventions: str | None = None
    other_suite: str | None = None


@dataclass
class Validate:
    """Limits of the paper's assumptions (``tracker.analysis.assumptions``), and how much is simulated."""

    entropy_spread: float = 0.1
    correlation: float = 0.0
    reconstruction: float = 1e-5
    settled: float = 0.1
    runs: int = 200
    seed: int = 0


@dataclass
class Config:
    """The whole request, checked."""

    suite: Suite
    steps: Steps
    probe: Probe
    conventions: Conventions
    sink: dict[str, Any]
    engine: Engine
    cache: Cache
    forecast: Forecast
    view: View
    compare: Compare
    validate: Validate
    metric_files: tuple[str, ...]
    options: frozenset[str]
    """Further measures: fields of ``spectrum`` that are no conventions, as far as they are true."""
    what: str
    store: Path
    dtype: str
    device: str
    shard: tuple[int, int]
    remeasure: str
    figures: Path | None
    workspace: bool
    serve: bool
    verbose: bool


SECTIONS: dict[str, type[Any]] = {
    "steps": Steps,
    "probe": Probe,
    "engine": Engine,
    "cache": Cache,
    "forecast": Forecast,
    "view": View,
    "compare": Compare,
    "validate": Validate,
}
"""Groups that become their dataclass as they are."""


def folder() -> Path:
    """Return the folder of the YAML groups: inside the installed package, else beside it in a checkout.

    Raises:
        RequestError: neither is there.
    """
    for place in (PACKAGE / "conf", PACKAGE.parent / "conf"):
        if (place / "config.yaml").is_file():
            return place
    raise RequestError(
        f"the configuration is missing: neither {PACKAGE / 'conf'} nor ../conf; install tracker again"
    )


def read(composed: DictConfig) -> Config:
    """Return the composed configuration as checked dataclasses; touch no file.

    Raises:
        RequestError: names the field, the value and what is allowed.
    """
    plain = OmegaConf.create(OmegaConf.to_container(composed, resolve=True))
    assert isinstance(plain, DictConfig)
    known = {each.name for each in fields(Config)} - {"conventions", "metric_files", "options"}
    _refuse_unknown("", plain, known | {"spectrum", "encodings"})
    if plain.get("encodings") is not None and "encodings" not in plain.suite:
        raise RequestError(
            f"encodings={plain.encodings}: only suite=nano is trained here, suite={plain.suite.get('name')} "
            "is not; leave it out"
        )
    spectrum = _section(Spectrum, "spectrum", plain.spectrum)
    config = Config(
        suite=_suite(plain.suite),
        **{name: _section(kind, name, plain[name]) for name, kind in SECTIONS.items()},
        conventions=_conventions(spectrum),
        sink=dict(plain.sink),
        metric_files=tuple(map(str, plain.spectrum.get("metrics") or ())),
        options=frozenset(name for name in OPTIONS if getattr(spectrum, name)),
        what=_chosen("what", plain.what, VALIDATIONS),
        store=Path(_text("store", plain.store)).expanduser(),
        dtype=_chosen("dtype", plain.dtype, DTYPE_NAMES),
        device=_device(plain.device),
        shard=_shard(plain.shard),
        remeasure=_chosen("remeasure", plain.remeasure, REMEASURE),
        figures=Path(str(plain.figures)).expanduser() if plain.figures else None,
        workspace=_boolean("workspace", plain.workspace),
        serve=_boolean("serve", plain.serve),
        verbose=_boolean("verbose", plain.verbose),
    )
    _check_ranges(config)
    _check_engine(config.engine)
    return config


def _check_ranges(config: Config) -> None:
    _chosen("steps.name", config.steps.name, STEP_CHOICES)
    _chosen("compare.by", config.compare.by, COMPARE_BY)
    _chosen("compare.at", config.compare.at, COMPARE_AT)
    _positive("cache.max_gb", config.cache.max_gb, "no bound")
    for name, value in vars(config.forecast).items():
        _positive(f"forecast.{name}", value, "what is recorded")
    if not 0 <= config.view.port <= 65535:
        raise unknown_value("view.port", config.view.port, "0 (any that is free) to 65535")
    for name, value in vars(config.validate).items():
        if not math.isfinite(value):
            raise unknown_value(f"validate.{name}", value, "finite numbers")
    _whole("validate.runs", config.validate.runs, 1)
    _whole("validate.seed", config.validate.seed, 0)


def _conventions(spectrum: Spectrum) -> Conventions:
    """Return the section's conventions, with the metrics that its files register."""
    load_metrics(spectrum.metrics)
    given = {name: value for name, value in vars(spectrum).items() if name not in OPTIONS}
    return conventions_of(**(given | {"metrics": None}))


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise unknown_value(name, value, "true, false")
    return value


def _check_engine(engine: Engine) -> None:
    _chosen("engine.name", engine.name, ENGINES)
    _chosen("engine.stream", engine.stream, STREAM)
    for name, least in (
        ("workers", 1),
        ("threads", 1),
        ("prefetch", 0),
        ("retries", 0),
        ("min_workers", 0),
        ("batch", 1),
    ):
        _whole(f"engine.{name}", getattr(engine, name), least)
    most = engine.workers or 1
    if engine.address is None and engine.min_workers is not None and engine.min_workers > most:
        raise unknown_value("engine.min_workers", engine.min_workers, f"at most engine.workers={most}")
    for name in ("timeout", "recycle_gb", "wait"):
        _positive(f"engine.{name}", getattr(engine, name), "no bound")


def _whole(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise unknown_value(name, value, f"whole numbers from {least}")


def _positive(name: str, value: float | None, null: str) -> None:
    if value is not None and not 0 < value < math.inf:
        raise unknown_value(name, value, f"numbers above 0, or null for {null}")


def unknown_field(name: str, known: Iterable[str], elsewhere: Iterable[str] = ()) -> RequestError:
    """Return the error for a field that does not exist, named as the user writes it (``suite.modles``).

    Args:
        name: as it was given.
        known: fields that stand beside it.
        elsewhere: whole names of other fields, among which the one that was meant may be.
    """
    known = sorted(known)
    section, _, leaf = name.rpartition(".")
    prefix = f"{section}." if section else ""
    same = [each for each in elsewhere if each.rpartition(".")[2] == leaf]
    meant = f"; did you mean {same[0]}?" if same else closest(name, [f"{prefix}{each}" for each in known])
    return RequestError(f"unknown field '{name}'; choose from {', '.join(known) or 'none'}{meant}")


def _refuse_unknown(section: str, node: DictConfig, known: set[str]) -> None:
    for given in node:
        if given not in known:
            raise unknown_field(f"{section}{given}", known)


def _refuse_no_group(name: str, node: Any) -> None:
    if not OmegaConf.is_dict(node):
        raise unknown_value(name, node, "a group of fields; leave it out for the defaults")


def _suite(node: DictConfig) -> Suite:
    """Return the suite; its kind is that which has the field that only one kind has."""
    _refuse_no_group("suite", node)
    kinds: tuple[tuple[str, type[Any]], ...] = (
        ("train_steps", NanoSuite),
        ("repo_format", PublishedSuite),
        ("repo", HubSuite),
        ("repos", HubSuite),
        ("path", FolderSuite),
    )
    kind = next((kind for mark, kind in kinds if mark in list(node)), None)
    if kind is None:
        marks = " or ".join(mark for mark, _ in kinds)
        raise RequestError(f"suite={node.get('name')}: no checkpoint source specified; it needs {marks}")
    suite = _section(kind, "suite", node)
    if isinstance(suite, NanoSuite):
        suite.models = _with_encodings(suite.models, suite.encodings)
    return suite


def _with_encodings(models: list[str], encodings: list[str] | None) -> list[str]:
    """Name every model with every encoding: ``0.2m`` is rotary, ``0.2m-alibi`` has ALiBi instead."""
    if encodings is None:
        return models
    if not encodings:
        raise RequestError("encodings=[]: nothing to train; name at least one position encoding")
    if len(set(encodings)) < len(encodings):
        raise RequestError(f"encodings={encodings}: one is named twice; name each once")
    return [model if each == "rotary" else f"{model}-{each}" for model in models for each in encodings]


def checked(kind: type[Section], name: str, given: Mapping[str, Any]) -> Section:
    """Return a group of fields as its dataclass, names and types checked.

    Raises:
        RequestError: an unknown field, or a value of another type.
    """
    return _section(kind, name, OmegaConf.create(dict(given)))


def _section(kind: type[Section], name: str, node: DictConfig) -> Section:
    _refuse_no_group(name, node)
    _refuse_unknown(f"{name}.", node, {each.name for each in fields(kind)})  # type: ignore[arg-type]
    for given in node:
        if OmegaConf.is_missing(node, given):
            raise RequestError(f"{name}.{given} is required; give {name}.{given}=...")
    for given in _lists(kind):
        value = node.get(given)
        if value is not None and not OmegaConf.is_list(value):
            node[given] = [value]
    try:
        made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), node))
    except OmegaConfBaseException as error:
        raise _wrong_type(name, node, error) from error
    return made  # type: ignore[return-value]


def _lists(kind: type[Any]) -> list[str]:
    """The fields that hold a list, for which one value may stand alone."""
    hints = get_type_hints(kind)
    return [
        name
        for name, hint in hints.items()
        if any(get_origin(each) is list for each in (hint, *get_args(hint)))
    ]


def _wrong_type(name: str, node: DictConfig, error: OmegaConfBaseException) -> RequestError:
    """What a value of another type is refused with, in the words of whoever typed it."""
    reason, at = str(error).splitlines()[0], getattr(error, "full_key", None)
    kind = re.search(r"could not be converted to (\w+)", reason)
    if not at:
        return RequestError(f"{name}: {reason}")
    if not kind:
        return RequestError(f"{name}.{at}: {reason}")
    value, words = OmegaConf.select(node, at), TYPES.get(kind[1], kind[1])
    return unknown_value(f"{name}.{at}", value, words)


def conventions_of(**given: Any) -> Conventions:
    """Check every field of conventions and return them.

    Args:
        given: fields of ``Conventions``; the others keep their defaults, and ``metrics`` is, unless it is
            given, whatever is registered in this process.

    Raises:
        RequestError: names the field, the value and what is allowed.
    """
    values = vars(Conventions()) | given
    if given.get("metrics") is None:
        values["metrics"] = registered_identities()
    values["metrics"] = tuple(own.identity for own in custom_metrics(values["metrics"]))
    for name in ("alphas", "windows"):
        values[name] = tuple(values[name])
    for name, allowed in (("alphas", (0.5, 0.25)), ("windows", (16, 32, 64))):
        for value in values[name]:
            if value not in allowed:
                raise unknown_value(f"spectrum.{name}", value, allowed)
    for name, allowed in CONVENTION_CHOICES.items():
        _chosen(f"spectrum.{name}", values[name], allowed)
    if values["wavelet"] not in wavelist(kind="discrete"):
        raise unknown_value("spectrum.wavelet", values["wavelet"], wavelist(kind="discrete"))
    if not values["alphas"]:
        raise unknown_value("spectrum.alphas", "[]", (0.5, 0.25))
    for name, least in (("span", 1), ("block", 4), ("queries", 2), ("theory_tokens", 0), ("n_fft", 2)):
        _whole(f"spectrum.{name}", values[name], least)
    return Conventions(**values)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise unknown_value(name, value, "a text")
    return value


def _device(value: object) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(value)):
        meant = "; did you mean cuda?" if value == "gpu" else closest(str(value), DEVICES)
        raise unknown_value("device", value, f"one of auto, cpu, cuda, cuda:1{meant}")
    return str(value)


def _chosen(name: str, value: object, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise unknown_value(name, value, allowed)
    return str(value)


def _shard(value: object) -> tuple[int, int]:
    number, slash, count = str(value).partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise unknown_value("shard", value, "i/n with 1 <= i <= n, for example 3/16")
    return int(number), int(count)
