"""``tracker sweep --help``: the groups, and every field with its default and the comment it has in conf/."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tracker import config
from tracker.commands import Command

FIELD = re.compile(r"^(?P<indent> *)(?P<name>\w+):")
NOT_FIELDS = ("defaults", "hydra")
MORE = """
Fields are given as field=value, files of a group as group=name; --cfg job shows the composed request,
--multirun runs one job for each of several values (field=a,b).
  tracker sweep suite=pythia steps=paper suite.models=[70m,410m]
  tracker plan suite=hub suite.repo=org/name
  tracker sweep suite=folder suite.path=DIR store=DIR
"""


def command_help(command: Command, overrides: Sequence[str]) -> str:
    """Return the help of a command: the configuration as it stands in the files that overrides choose."""
    lines = [f"tracker {command.name}: {command.help}", "", "Groups:"]
    lines += [f"  {group}={'|'.join(names)}" for group, names in groups().items()]
    lines += ["", "Fields:"]
    chosen = _chosen(overrides)
    lines += [f"  {line}" for line in _blocks((config.folder() / "config.yaml").read_text("utf-8"))]
    for group in groups():
        path = config.folder() / group / f"{chosen.get(group, '')}.yaml"
        if path.is_file():
            lines += ["", f"  {group}:    # {group}={path.stem}"]
            lines += [f"    {line}" for line in _blocks(path.read_text("utf-8"))]
    return "\n".join([*lines, MORE.rstrip(), ""])


@cache
def groups() -> dict[str, list[str]]:
    """Return the names of the files of every group of the configuration."""
    folders = sorted(each for each in config.folder().iterdir() if each.is_dir())
    return {each.name: sorted(path.stem for path in each.glob("*.yaml")) for each in folders}


@cache
def all_fields() -> list[str]:
    """Return the whole names of all fields, of every file of every group."""
    names = _fields(config.folder() / "config.yaml", "")
    for group in groups():
        for path in sorted((config.folder() / group).glob("*.yaml")):
            names += _fields(path, f"{group}.")
    return list(dict.fromkeys(names))


def _fields(path: Path, prefix: str) -> list[str]:
    names, section = [], ""
    for line in _blocks(path.read_text("utf-8")):
        if match := FIELD.match(line):
            section = section if match["indent"] else f"{match['name']}."
            names.append(
                f"{prefix}{section}{match['name']}" if match["indent"] else f"{prefix}{match['name']}"
            )
    return names


def _chosen(overrides: Sequence[str]) -> dict[str, str]:
    """The file of each group: that of the overrides, else that which the suite prefers, else the default."""
    given = {name: value for name, given, value in (each.partition("=") for each in overrides) if given}
    text = (config.folder() / "config.yaml").read_text("utf-8")
    usual: dict[str, str] = dict(re.findall(r"^  - (\w+): ([\w-]+)$", text, flags=re.MULTILINE))
    suite = config.folder() / "suite" / f"{given.get('suite', usual['suite'])}.yaml"
    text = suite.read_text("utf-8") if suite.is_file() else ""
    preferred: dict[str, str] = dict(
        re.findall(r"^  - override /(\w+)\S*: ([\w-]+)", text, flags=re.MULTILINE)
    )
    return usual | preferred | given


def _blocks(text: str) -> list[str]:
    """The lines of a file, without the blocks that are Hydra's own."""
    kept, inside = [], False
    for line in text.splitlines():
        match = FIELD.match(line)
        if match and not match["indent"]:
            inside = match["name"] in NOT_FIELDS
        if not inside and line.strip():
            kept.append(line)
    return kept
