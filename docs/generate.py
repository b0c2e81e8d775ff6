"""Write docs/reference/ from the code and the comments of conf/: ``python docs/generate.py``."""

import inspect
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"
sys.path.insert(0, str(ROOT))

import tracker  # noqa: E402
from tracker import cli, config  # noqa: E402
from tracker.commands import COMMANDS  # noqa: E402
from tracker.metrics.table import METRICS  # noqa: E402
from tracker.store.schema import MEANINGS, SCHEMAS  # noqa: E402

FIELD = re.compile(r"^(?P<indent> *)(?P<name>\w[\w.-]*):(?: +(?P<value>[^ #].*?))?(?: +# ?(?P<comment>.*))?$")
NOT_FIELDS = ("defaults", "hydra")


def main() -> None:
    """Write every generated page."""
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Return the text of every generated page by its file name in docs/reference/."""
    return {
        "cli.md": command_line(),
        "config.md": configuration(),
        "store.md": columns(),
        "exit-codes.md": exit_codes(),
        "python.md": python_interface(),
    }


def command_line() -> str:
    """Return the page of commands."""
    rows = [(f"`tracker {each.name}`", each.help, _summary(each.load())) for each in COMMANDS.values()]
    renamed = [(f"`{old}`", f"`{new}`") for old, new in cli.RENAMED.items()]
    return _page(
        "Command line",
        f"```text\n{cli.usage().strip()}\n```",
        _table(("command", "purpose", "in detail"), rows),
        "`--multirun`, `--cfg job` and `--help` behind a command are Hydra's own. Every field is listed in "
        "[Configuration](config.md), every exit code in [Exit codes](exit-codes.md).",
        "## Fields that were renamed",
        "The old names still work and print one line.",
        _table(("old", "current"), renamed),
    )


def exit_codes() -> str:
    """Return the page of exit codes."""
    return _page(
        "Exit codes",
        _table(("code", "meaning"), [(str(code), meaning) for code, meaning in cli.EXIT_CODES.items()]),
        "A command line of several jobs (`--multirun`) ends with the largest code of its jobs.",
    )


def configuration() -> str:
    """Return the page of configuration groups and fields."""
    folder = config.folder()
    main_file = (folder / "config.yaml").read_text(encoding="utf-8")
    parts = [
        "A field is set with `name=value` behind any command, an option of a group with `group=option`, for "
        "example `tracker sweep suite=pythia suite.models=[70m,410m]`. `???` has to be given.",
        "## Top level",
        _table(("field", "default", "meaning"), list(fields(main_file))),
    ]
    for group in sorted(each for each in folder.iterdir() if each.is_dir()):
        parts.append(f"## {group.name}")
        for path in sorted(group.glob("*.yaml")):
            text = path.read_text(encoding="utf-8")
            parts += [f"### {group.name}={path.stem}", _heading_comment(text)]
            parts.append(_table(("field", "default", "meaning"), list(fields(text, f"{group.name}."))))
    return _page("Configuration", *[part for part in parts if part])


def fields(text: str, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield name, default and comment of every field of a configuration file.

    A section (``cache:``) has an empty default; comment lines above or below a field belong to it.
    """
    above: list[str] = []
    path: list[tuple[int, str]] = []
    row: list[str] | None = None
    skipped = False
    for line in _without_heading_comment(text):
        if match := FIELD.match(line):
            indent, name = len(match["indent"]), match["name"]
            if indent == 0:
                skipped = name in NOT_FIELDS
            if skipped:
                continue
            if row:
                yield row[0], row[1], row[2]
            path = [each for each in path if each[0] < indent] + [(indent, name)]
            full = prefix + ".".join(each for _, each in path)
            comment = " ".join([*above, match["comment"] or ""]).strip()
            default = f"`{match['value']}`" if match["value"] else ""
            row, above = [f"`{full}`", default, comment], []
        elif line.strip().startswith("#"):
            words = line.strip().removeprefix("#").strip()
            if row and line.startswith(" "):
                row[2] += f" {words}"
            else:
                above.append(words)
    if row:
        yield row[0], row[1], row[2]


def columns() -> str:
    """Return the page of the store's tables and columns."""
    meanings = MEANINGS | {metric.name: metric.meaning for metric in METRICS}
    meanings["wavelet_entropy_0"] += " is the coarsest"
    parts = [
        "Every checkpoint is one folder of four parquet tables with exactly these columns; a metric that "
        "does not exist for a checkpoint is null. `_std` is the standard deviation (over sequences in "
        "`heads`, over heads in `checkpoint`), `_q25` and `_q75` are the quartiles over heads; "
        "`averaged_` is the same metric of averaged attention, with the same spreads. Metrics are defined"
        " in [Metrics](../metrics.md).",
    ]
    for table, schema in SCHEMAS.items():
        rows = [
            (_with_variants(name, schema), str(kind), meanings.get(name, ""))
            for name, kind in schema.items()
            if not _is_variant(name, schema)
        ]
        parts += [f"## {table}", _table(("column", "type", "meaning"), rows)]
    return _page("Tables of a store", *parts)


def python_interface() -> str:
    """Return the page of the Python interface."""
    parts = [f"## tracker.{name}\n\n```text\n{_documented(name)}\n```" for name in tracker.__all__]
    return _page("Python interface", *parts)


def _documented(name: str) -> str:
    thing = getattr(tracker, name)
    given = ", ".join(_parameter(each) for each in inspect.signature(thing).parameters.values())
    return f"tracker.{name}({given})\n\n{inspect.getdoc(thing)}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
    return f"{stars}{parameter.name}{default}"


def _is_variant(name: str, schema: Collection[str]) -> bool:
    """Whether a column stands in another's row: a spread, an averaged signal, a further wavelet scale."""
    plain = re.sub(r"(_std|_q25|_q75)$", "", name.removeprefix("averaged_"))
    return re.fullmatch(r"wavelet_entropy_[1-9]\d*", plain) is not None or (plain != name and plain in schema)


def _with_variants(name: str, schema: Collection[str]) -> str:
    scales = [each for each in schema if re.fullmatch(r"wavelet_entropy_\d+", each)]
    shown = f"`{name}`" + (f" ... `{scales[-1]}`" if name in scales else "")
    spreads = [end for end in ("_std", "_q25", "_q75") if name + end in schema]
    averaged = ["averaged_"] if f"averaged_{name}" in schema else []
    return ", ".join([shown, *(f"`{each}`" for each in spreads + averaged)])


def _heading_comment(text: str) -> str:
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def _without_heading_comment(text: str) -> list[str]:
    lines = text.splitlines()
    while lines and lines[0].startswith("#"):
        lines.pop(0)
    return lines


def _summary(thing: object) -> str:
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ").replace("``", "`")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *[tuple(_cell(text) for text in row) for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Escape what Markdown takes for a column border or, outside code, for a tag."""
    parts = text.replace("|", "\\|").split("`")
    return "`".join(part if code % 2 else part.replace("<", "&lt;") for code, part in enumerate(parts))


def _page(title: str, *parts: str) -> str:
    note = "<!-- Written by docs/generate.py from the code and conf/; edit those. -->"
    return "\n\n".join([f"# {title}", note, *parts]) + "\n"


if __name__ == "__main__":
    main()
