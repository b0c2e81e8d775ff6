"""Overrides as people write them, made readable for Hydra, or refused with how to write them."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from itertools import pairwise

from tracker.errors import RequestError

RENAMED = {
    "engine.least": "engine.min_workers",
    "engine.stint": "engine.batch",
    "probe.number": "probe.sequences",
    "suite.dense": "suite.dense_steps",
}
"""Fields under the names that they had in earlier versions, which scripts may still use."""
HOME = re.compile(r"(?<=[=\[,])~(?=/|[,\]]|$)")
"""``~`` where a value, or an element of a list, begins."""
TEXTS = (
    "store", "figures", "suite.path", "suite.repo", "suite.branch", "suite.pattern", "suite.model",
    "suite.models", "suite.stages", "suite.name", "probe.name", "probe.text", "probe.dataset", "probe.file",
    "probe.revision", "probe.field", "probe.ids", "probe.tokenizer", "cache.folder",
    "sink.project", "sink.entity", "view.suite", "view.probe", "view.conventions",
    "compare.other", "compare.other_suite", "compare.other_probe", "compare.other_conventions",
)  # fmt: skip
"""Fields that hold text: what is typed there stays, where Hydra would read a number or a truth value."""
UNTYPED = re.compile(r"(?i)[+-]?(\d[\d_]*(\.[\d_]*)?|\.[\d_]+)(e[+-]?\d[\d_]*)?|true|false|inf|nan")


def with_texts(override: str) -> str:
    """Return an override of a text field with what Hydra would take for a number in quotes.

    Example:
        >>> with_texts("suite.path=2024_11_20"), with_texts("suite.models=[1e5,70m]")
        ("suite.path='2024_11_20'", "suite.models=['1e5',70m]")
        >>> with_texts("probe.n=96")
        'probe.n=96'
        >>> with_texts("suite.repo=lab/bert-step_{0,20}k")
        'suite.repo="lab/bert-step_{0,20}k"'
    """
    match = re.fullmatch(r"([+]{0,2}[\w.]+)=(.*)", override, flags=re.DOTALL)
    if match is None or match[1].lstrip("+") not in TEXTS:
        return override
    name, value = match[1], match[2]
    if value[:1] in ("'", '"'):
        return override
    if name == "suite.repo" and "{" in value:
        return f'{name}="{value}"'

    def quote(text: str) -> str:
        return f"'{text}'" if UNTYPED.fullmatch(text) else text

    if value.startswith("[") and value.endswith("]"):
        return f"{name}=[{','.join(quote(each.strip()) for each in value[1:-1].split(','))}]"
    return f"{name}={','.join(quote(each) for each in value.split(','))}"


def with_current_names(overrides: Sequence[str]) -> list[str]:
    """Return overrides with fields under their current names; each old name costs a line on stderr."""
    current = []
    for override in overrides:
        match = re.fullmatch(r"([+~]*)([\w.]+)((?:=.*)?)", override, flags=re.DOTALL)
        if match and match[2] in RENAMED:
            name = RENAMED[match[2]]
            sys.stderr.write(f"tracker: {match[2]} is now called {name}; the old name will be removed\n")
            override = f"{match[1]}{name}{match[3]}"
        current.append(override)
    return current


def readable_overrides(arguments: Sequence[str]) -> list[str]:
    """Return arguments as Hydra reads them: current names, ``~`` expanded.

    Raises:
        RequestError: one is no override that Hydra's grammar can read; says how to write it.
    """
    named = [with_texts(each) for each in with_current_names(arguments)]
    overrides = [HOME.sub(lambda _: os.path.expanduser("~"), each) for each in named]
    _refuse_options(overrides)
    several = bool({"--multirun", "-m"} & set(overrides))
    for at, override in enumerate(overrides):
        if not override.startswith("-") and not _is_argument_of(overrides[at - 1] if at else ""):
            _refuse_unreadable(override, overrides[at:], several)
    return overrides


def _options() -> dict[str, bool]:
    """Hydra's own options, and whether a value follows as an argument of its own."""
    from hydra._internal.utils import get_args_parser

    actions = get_args_parser()._actions
    return {name: each.nargs != 0 for each in actions for name in each.option_strings}


def _is_argument_of(before: str) -> bool:
    return before.startswith("-") and _options().get(before, False)


def _refuse_options(overrides: Sequence[str]) -> None:
    """Refuse ``--models 70m``: fields are not options."""
    for override, after in pairwise([*overrides, ""]):
        name, given, value = override.partition("=")
        if not override.startswith("-") or name in _options():
            continue
        field = name.lstrip("-").replace("-", "_")
        value = value if given else after
        value = value if value and not value.startswith("-") and "=" not in value else "..."
        raise RequestError(f"{name}: fields are not options; write {_whole_name(field)}={value}")


def _whole_name(field: str) -> str:
    """``suite.models`` for ``models``, where a field of that name stands in one group."""
    from tracker.cli.help import all_fields, groups

    known = all_fields()
    if field in known or field in groups():
        return field
    return next((each for each in known if each.rpartition(".")[2] == field), field)


def _refuse_unreadable(override: str, rest: Sequence[str], several: bool) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException as error:
        raise RequestError(_how_to_write(override, rest)) from error
    if parsed.is_sweep_override() and not several and "," in override:
        field, _, value = override.partition("=")
        raise RequestError(
            f"{override}: several values; write a list as {field}=[{value}], a text as "
            f"{quoted(field, value)}, and add --multirun for a run of each"
        )


def _how_to_write(override: str, rest: Sequence[str]) -> str:
    """Say how an override that Hydra's grammar does not take has to be written.

    Args:
        override: the argument.
        rest: it and all behind it: a shell parts ``[70m, 410m]`` at the blank.
    """
    field, given, value = override.partition("=")
    if given and value.count("[") > value.count("]"):
        whole = next((joined for end in range(1, len(rest) + 1)
                      if _balanced(joined := " ".join(rest[:end]))), f"{override}]")  # fmt: skip
        return f"{override}: a list ends with ]; write it without blanks, or in quotes: {shlex.quote(whole)}"
    if not given:
        from tracker.cli.help import groups

        option = next((f"{group}={field}" for group, known in groups().items() if field in known), None)
        meant = f"; did you mean {option}?" if option else ""
        return f"{override} is no field=value, as in suite.models=[70m,410m]{meant}; --help lists them"
    return f"{override}: has characters of Hydra's grammar in it; quote the value: {quoted(field, value)}"


def _balanced(text: str) -> bool:
    return text.count("[") == text.count("]")


def quoted(field: str, value: str) -> str:
    """Return an override with its value quoted for Hydra, and the whole for a shell.

    Example:
        >>> quoted("suite.pattern", r"step(\\d+)$")
        '\\'suite.pattern="step(\\\\d+)$"\\''
    """
    inner = value.replace('"', '\\"')
    return shlex.quote(f'{field}="{inner}"')
