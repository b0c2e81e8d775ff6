"""Online or offline: what the user asked for, what the environment says, and whether there is a key."""

import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

from tracker.wandb_sink.options import SinkOptions

OFFLINE_WORDS = ("offline", "dryrun")
DISABLED_WORDS = ("disabled",)
ONLINE_WORDS = ("online", "run", "shared")


def resolve_mode(options: SinkOptions, base_url: str) -> str:
    """``online``, ``offline`` or ``disabled``.

    ``mode=auto`` follows ``WANDB_MODE`` where it is set, else it is online if there is a key for the host.

    Args:
        options: the user's choice, which wins over the environment.
        base_url: address of the W&B server.
    """
    if not options.enabled:
        return "disabled"
    if options.mode != "auto":
        return options.mode
    wanted = os.environ.get("WANDB_MODE", "").strip().lower()
    for mode, words in (("offline", OFFLINE_WORDS), ("disabled", DISABLED_WORDS), ("online", ONLINE_WORDS)):
        if wanted in words:
            return mode
    return "online" if has_key(base_url) else "offline"


def has_key(base_url: str) -> bool:
    """Whether this machine has credentials for the W&B server: environment, token file or netrc."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(base_url).netloc
    try:
        # Not authenticators(): a netrc may have a default entry, which says nothing about W&B.
        return host in netrc.netrc(_netrc_file()).hosts
    except (OSError, netrc.NetrcParseError):
        return False


def _netrc_file() -> Path:
    named = os.environ.get("NETRC")
    if named:
        return Path(named).expanduser()
    plain, windows = Path("~/.netrc").expanduser(), Path("~/_netrc").expanduser()
    return windows if windows.exists() and not plain.exists() else plain


def without_secrets(text: str) -> str:
    """``text`` with the key removed, should an error of the client quote it."""
    key = os.environ.get("WANDB_API_KEY")
    return text.replace(key, "***") if key else text
