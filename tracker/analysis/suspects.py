"""Checkpoints that an audit found not to be what their branch says, by repository and step."""

from collections.abc import Mapping
from typing import Any

HARMLESS = ("expected-twin", "missing", "no-weights")
"""Findings that are no reason to leave a measurement out: known twins, and what cannot be measured."""
Suspects = Mapping[tuple[str, int], str]
"""(repository, step) -> why it is suspect."""


def suspects_of(audit: Mapping[str, Any]) -> dict[tuple[str, int], str]:
    """The checkpoints that analyses leave out, from the content of a store's ``audit.json``.

    Args:
        audit: {"repos": [{"repo", "findings": [{"step", "fault", "with", ...}]}]}.
    """
    found: dict[tuple[str, int], str] = {}
    for repo in audit.get("repos", []):
        for finding in repo.get("findings", []):
            if finding.get("fault") not in HARMLESS and finding.get("step") is not None:
                found[str(repo["repo"]), int(finding["step"])] = _reason(finding)
    return found


def _reason(finding: Mapping[str, Any]) -> str:
    same = finding.get("with")
    told = f" (as {same})" if same is not None else ""
    return f"suspect by the audit: {finding['fault']}{told}"
