"""Verify that checkpoint weights match their names, from file hashes alone; makes no request, reads no file.

A checkpoint is identified by the hashes of the weight files that would be measured. Two steps of one run that
share them cannot both be right, except step 0 and 1 where the first iteration's learning rate is 0.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tracker.checkpoints import files
from tracker.checkpoints.remote import RemoteFile

UNLIKE_LOSS = "unlike-loss"
SUSPICIOUS = ("same-weights", "shared-shard", "last-not-main", "bad-tensor", UNLIKE_LOSS)
"""Faults of checkpoints that can be measured, but whose weights may not match their names."""
REMARKS = ("expected-twin", "unusual-start")
"""What is told and is no fault."""
FAULTS = ("missing", "no-weights", *SUSPICIOUS, *REMARKS)
TWINS = frozenset({0, 1})
TENSORS = "tensors"
"""Stands among the formats for the tensors themselves, whatever files they lie in."""
LEAST_REGULAR = 3
"""Distances between steps that must be equal before a larger one counts as a gap."""


@dataclass(frozen=True)
class Revision:
    """One branch or folder, as its files describe it."""

    name: str
    commit: str | None
    sets: Mapping[str, Mapping[str, str]]
    """Complete sets of weights in order of preference: format -> file -> hash."""
    step: int | None = None
    """None for ``main``."""
    seed: int = 0
    files: tuple[str, ...] = ()
    """Names of all its files, for messages."""
    measurable: bool = True
    """Whether it holds a whole set of weights, with hashes or not."""

    @property
    def preferred(self) -> tuple[str, frozenset[str]] | None:
        """What would be measured: format, and the hashes of its files; None without weights."""
        return next(iter(self.keys), None)

    @property
    def keys(self) -> tuple[tuple[str, frozenset[str]], ...]:
        """What identifies its weights, in each format."""
        return tuple((form, frozenset(hashes.values())) for form, hashes in self.sets.items())


@dataclass(frozen=True)
class Finding:
    """One fault of one step."""

    step: int
    fault: str
    """One of ``FAULTS``."""
    sentence: str
    other: int | str | None = None
    """The step, or ``main``, that it equals or shares with."""
    file: str | None = None
    revision: str | None = None
    commit: str | None = None
    seed: int = 0
    known: str | None = None
    """Where it has been reported before."""


@dataclass(frozen=True)
class Evidence:
    """All that an audit of one repository or folder has to go by."""

    revisions: Sequence[Revision]
    """The checkpoints, of any seed, each step of a seed once."""
    main: Revision | None = None
    planned: Mapping[int, Iterable[int]] = field(default_factory=dict)
    """Seed -> steps that ought to be there."""
    existing: Mapping[int, Iterable[int]] = field(default_factory=dict)
    """Seed -> steps that are there, looked at or not."""
    continued: bool = False
    """Whether training goes on after the last of these steps, so that main is not to equal it."""


def revision_of(
    name: str, commit: str | None, listed: Sequence[RemoteFile], step: int | None = None, seed: int = 0
) -> Revision:
    """Describe a branch by its listing; sets with a file without a hash are left out."""
    digests = {file.name: file.digest for file in listed}
    _, chosen = files.needed(digests)
    whole = bool(chosen) and files.complete(chosen)
    sets: dict[str, dict[str, str]] = {}
    for form, names in files.sets(digests).items() if whole else ():
        known = {each: digest for each in names if (digest := digests[each])}
        if len(known) == len(names):
            sets[form] = known
    return Revision(name, commit, sets, step, seed, tuple(sorted(digests)), whole)


def findings(evidence: Evidence) -> list[Finding]:
    """Return every fault, ordered by seed, step and fault."""
    found = [*_missing(evidence)]
    for revision in evidence.revisions:
        if not revision.measurable:
            found.append(_no_weights(revision))
    last = _last(evidence)
    found += _same(evidence, last)
    found += _shared(evidence, last)
    if last is not None and evidence.main is not None and _differ(last, evidence.main):
        found.append(_finding(last, "last-not-main", "the last step, but main holds other weights", "main"))
    return sorted(found, key=lambda each: (each.seed, each.step, FAULTS.index(each.fault), each.file or ""))


def gaps(steps: Iterable[int]) -> list[int]:
    """Return the steps that an otherwise regular schedule leaves out.

    A schedule is regular where the same distance, or doubling from one power of two to the next, returns at
    least three times; a gap is larger, would hold whole steps of it, and has regular neighbours on both
    sides. A schedule that grows coarser, or follows no rule, has none.
    """
    there = sorted(set(steps))
    linear = [(high - low, low, high) for low, high in pairwise(there)]
    absent = _inside(linear, lambda low, high, unit: range(low + unit, high, unit))
    powers = [step for step in there if step > 0 and step & (step - 1) == 0]
    doubled = [(high // low, low, high) for low, high in pairwise(powers)]
    if sum(factor == 2 for factor, _, _ in doubled) >= LEAST_REGULAR:
        absent += _inside(doubled, lambda low, high, unit: _doublings(low, high), unit=2)
    return sorted(set(absent) - set(there))


def _doublings(low: int, high: int) -> list[int]:
    found, step = [], 2 * low
    while step < high:
        found.append(step)
        step *= 2
    return found if step == high else []


def _inside(distances, between, unit=None) -> list[int]:
    """Steps in runs of larger distances that have regular ones on both sides."""
    counts = Counter(each for each, _, _ in distances)
    if unit is None:
        unit, often = max(counts.items(), key=lambda item: (item[1], item[0]), default=(0, 0))
        if often < LEAST_REGULAR:
            return []
    regular = [place for place, (each, _, _) in enumerate(distances) if each == unit]
    found: list[int] = []
    for before, after in pairwise(regular):
        run = distances[before + 1 : after]
        if all(each > unit and each % unit == 0 for each, _, _ in run) and len(run) <= len(regular) / 3:
            found += [step for _, low, high in run for step in between(low, high, unit)]
    return found


def _missing(evidence: Evidence) -> list[Finding]:
    found = []
    there = {seed: set(steps) for seed, steps in evidence.existing.items()}
    for revision in evidence.revisions:
        there.setdefault(revision.seed, set()).add(revision.step or 0)
    for seed in sorted({*there, *evidence.planned}):
        own = there.get(seed, set())
        wanted = set(evidence.planned.get(seed, ()))
        for step in sorted((wanted | set(gaps(own))) - own):
            why = "planned" if step in wanted else "a gap in an otherwise regular schedule"
            found.append(Finding(step, "missing", f"step {step} does not exist ({why})", seed=seed))
    return found


def _no_weights(revision: Revision) -> Finding:
    return _finding(revision, "no-weights", f"no whole set of weights; found {files.listed(revision.files)}")


def _last(evidence: Evidence) -> Revision | None:
    """The step that main is to equal; None where that cannot be asked."""
    seeds = {revision.seed for revision in evidence.revisions} | set(evidence.existing)
    if not evidence.revisions or len(seeds) != 1 or evidence.continued:
        return None
    there = [step for steps in evidence.existing.values() for step in steps]
    newest = max(evidence.revisions, key=lambda revision: revision.step or 0)
    return newest if newest.preferred is not None and newest.step == max([newest.step or 0, *there]) else None


def _equal(one: Revision, other: Revision) -> bool:
    """Whether ``other`` holds, in the same format or tensor by tensor, what would be measured of ``one``."""
    if one.preferred is None:
        return False
    tensors = one.sets.get(TENSORS)
    return one.preferred in other.keys or (tensors is not None and tensors == other.sets.get(TENSORS))


def _differ(one: Revision, other: Revision) -> bool:
    """Whether both hold a format in common, and no such format holds the same weights."""
    common = set(dict(one.keys)) & set(dict(other.keys))
    return bool(common) and all(dict(one.keys)[form] != dict(other.keys)[form] for form in common)


def _same(evidence: Evidence, last: Revision | None) -> list[Finding]:
    found = []
    main = evidence.main
    for one in evidence.revisions:
        if main is not None and _equal(one, main):
            if one is not last:
                found.append(_finding(one, "same-weights", "holds the weights of main", "main"))
            continue
        twins = [other for other in evidence.revisions if other is not one and _equal(one, other)]
        if not twins:
            continue
        if {one.step, *(twin.step for twin in twins)} == TWINS and twins[0].seed == one.seed:
            if one.step == 1:
                found.append(_finding(one, "expected-twin", "equals step 0, as where the first rate is 0", 0))
            continue
        names = ", ".join(str(twin.step) for twin in twins[:8]) + (" ..." if len(twins) > 8 else "")
        found.append(_finding(one, "same-weights", f"holds the weights of step {names}", twins[0].step))
    return found


def _shared(evidence: Evidence, last: Revision | None) -> list[Finding]:
    """Single shards that a checkpoint has in common with another one, or with main."""
    found = []
    right = [each for each in (evidence.main, last) if each is not None]
    others = [*right, *(each for each in evidence.revisions if each is not last)]
    for one in evidence.revisions:
        if one.preferred is None or len(next(iter(one.sets.values()))) < 2:
            continue
        if one is last and evidence.main is not None and _equal(one, evidence.main):
            continue  # this one is known to be right; the others take from it
        for file, digest in next(iter(one.sets.values())).items():
            other = next(
                (
                    each
                    for each in others
                    if each is not one and not _equal(one, each) and digest in _all_hashes(each)
                ),
                None,
            )
            if other is not None:
                name = "main" if other.step is None else other.step
                sentence = f"its shard {file} is that of {'main' if name == 'main' else f'step {name}'}"
                found.append(_finding(one, "shared-shard", sentence, name, file))
    return found


def _all_hashes(revision: Revision) -> set[str]:
    return {digest for hashes in revision.sets.values() for digest in hashes.values()}


def _finding(
    revision: Revision, fault: str, sentence: str, other: int | str | None = None, file: str | None = None
) -> Finding:
    step = revision.step or 0
    named = revision.name if revision.name.endswith(str(step)) else f"{revision.name} (step {step})"
    return Finding(
        step, fault, f"{named}: {sentence}", other, file, revision.name, revision.commit, revision.seed
    )
