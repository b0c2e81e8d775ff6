"""Sentences about the roles of heads."""

from collections.abc import Sequence

from tracker.analysis.schema import ModelRoles

MOST_NAMED = 6
"""Heads of one role that are listed."""


def born(birth: Sequence[int]) -> str:
    """Say when a head took its role for good: ``(16, 32]`` is after step 16, by 32.

    Example:
        >>> born([16, 32]), born([0, 0]), born([512, 512])
        ('(16, 32]', 'step 0', 'by 512')
    """
    low, high = birth
    return f"({low}, {high}]" if low < high else "step 0" if high == 0 else f"by {high}"


def role_sentence(entry: ModelRoles) -> str:
    """Say which heads have which role at the end, and how many had one at the first checkpoint."""
    parts = []
    for role in entry.counts:
        own = [each for each in entry.heads if each.role == role]
        if own:
            names = ", ".join(f"({each.layer}, {each.head})" for each in own[:MOST_NAMED])
            parts.append(f"{len(own)} {role} {names}{' ...' if len(own) > MOST_NAMED else ''}")
    none = sum(each.birth is None for each in entry.heads)
    text = (
        f"{entry.model} seed {entry.seed}, step {entry.step}: roles of {len(entry.heads)} heads "
        f"(layer, head): {'; '.join(parts) or 'none claimed'}"
    )
    if parts and none:
        text += f"; none claimed for {none}"
    first = sum(counts[0] for counts in entry.counts.values())
    before = f" At step {entry.steps[0]}, {first or 'none'} had one." if len(entry.steps) > 1 else ""
    return f"{text}.{before}"
