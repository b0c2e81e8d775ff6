"""Hydra's and OmegaConf's messages as one line that names the field and what is allowed."""

import re
from collections.abc import Sequence

from tracker import config
from tracker.cli.help import all_fields, groups
from tracker.errors import unknown_value


def one_line(error: Exception, overrides: Sequence[str]) -> str:
    """Return what an error of Hydra means, with the fields or values to choose from."""
    parts = [part.strip() for part in str(error).splitlines() if part.strip()]
    if "Config search path:" in parts:
        parts = parts[: parts.index("Config search path:")]
    if match := re.search(r"Could not find '(\w+)/([^']*)'", parts[0]):
        return str(unknown_value(match[1], match[2], groups().get(match[1], [])))
    if match := re.fullmatch(r"Could not override '(.+)'\.", parts[0]):
        return _unknown_field(match[1], overrides)
    return " ".join(part for part in parts if not part.startswith(("full_key:", "object_type=", "See https")))


def _unknown_field(name: str, overrides: Sequence[str]) -> str:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    choices = [override for override in overrides if override.split("=")[0] in groups()]
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        composed = compose("config", overrides=choices)
    parent = name.rpartition(".")[0]
    node = OmegaConf.select(composed, parent) if parent else composed
    present = [str(key) for key in node] if OmegaConf.is_dict(node) else []
    elsewhere = [
        each for each in all_fields() if OmegaConf.select(composed, each, default=composed) is not composed
    ]
    return str(config.unknown_field(name, present, elsewhere))
