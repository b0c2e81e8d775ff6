"""Tab completion of commands, groups and fields, in bash, zsh and fish."""

import os
import sys
from collections.abc import Sequence

from tracker.commands import COMMANDS

BASH = r"""_tracker_completion() {
  local IFS=$'\n'
  COMPREPLY=($(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" tracker -sc query=bash 2>/dev/null))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _tracker_completion tracker
"""
SHELLS = {
    "bash": BASH,
    "zsh": f"autoload -Uz bashcompinit && bashcompinit\n{BASH}",
    "fish": "complete -c tracker -f -a '(env COMP_LINE=(commandline -cp) tracker -sc query=fish)'\n",
}

ASKED = ("install", "uninstall", "query")


def complete(arguments: Sequence[str]) -> int:
    """Carry out ``-sc install=SHELL``, ``uninstall=SHELL`` or ``query=SHELL``; return the exit code."""
    asked = next((each for each in arguments if each.partition("=")[0] in ASKED), "")
    what, _, shell = asked.partition("=")
    if shell not in SHELLS:
        sys.stderr.write(f"tracker: -sc takes install=, uninstall= or query= with {', '.join(SHELLS)}\n")
        return 2
    if what == "install":
        sys.stdout.write(SHELLS[shell])
    elif what == "uninstall":
        sys.stdout.write("complete -c tracker -e\n" if shell == "fish" else "complete -r tracker\n")
    else:
        line, point = os.environ.get("COMP_LINE", ""), os.environ.get("COMP_POINT", "")
        found = proposals(line[: int(point)] if point.isdigit() else line)
        sys.stdout.writelines(f"{each}\n" for each in found)
    return 0


def proposals(line: str) -> list[str]:
    """Return what the last word of a command line may become.

    Args:
        line: up to the cursor, with the program's name.
    """
    words = line.split(" ")
    if len(words) <= 2:
        return [f"{name} " for name in COMMANDS if name.startswith(words[-1] if len(words) == 2 else "")]
    if words[1] not in COMMANDS:
        return []
    from hydra import initialize_config_dir
    from hydra._internal.core_plugins.bash_completion import BashCompletion
    from hydra.core.global_hydra import GlobalHydra

    from tracker import config
    from tracker.cli.help import all_fields
    from tracker.config import SECTIONS

    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        completion = BashCompletion(GlobalHydra.instance().config_loader())
        found = completion._query("config", " ".join(words[2:]))
    # Hydra goes on into lists, whose elements are not fields.
    fields = set(all_fields())
    return [f"{each[:-1]}=" if each[:-1] in fields and each[:-1] not in SECTIONS else each for each in found]
