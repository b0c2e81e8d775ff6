"""Room in a cache: what a bound and the disk allow, and what goes for it."""

import shutil
from dataclasses import dataclass

from tracker.checkpoints.answers import Subject
from tracker.checkpoints.claims import OVERHEAD, Claim, Claims, on_disk

SPARE = 0.005
"""Share of a disk that is left free, up to MOST_SPARE bytes."""
MOST_SPARE = 200_000_000


@dataclass(frozen=True)
class Room:
    """What fits into a cache; asked while nobody else changes a claim."""

    claims: Claims
    max_bytes: int | None
    """Bound of what tracker brought in and is to remove again; None: none."""

    def never_fits(self, claim: Claim) -> bool:
        """Return whether a claim is larger than the bound alone."""
        need = OVERHEAD + sum(on_disk(piece.size) for piece in claim.pieces if piece.ours)
        return self.max_bytes is not None and need > self.max_bytes

    def lacking(self, claim: Claim) -> int:
        """Return the bytes that a claim lacks, after removing what nobody needs where that helps."""
        lacking = self._short_of(claim)
        for idle in self.claims.all():
            if lacking <= 0:
                break
            if not idle.keep and idle.id != claim.id and not self.claims.is_leased(idle):
                self.claims.remove(idle)
                lacking = self._short_of(claim)
        return lacking

    def _short_of(self, claim: Claim) -> int:
        claims, disk = self.claims, shutil.disk_usage(self.claims.cache)
        spare = min(int(SPARE * disk.total), MOST_SPARE)
        arriving = [each for each in claims.all() if each.id != claim.id and not each.whole]
        coming = sum(claims.bytes_lacking(each) for each in arriving if claims.is_leased(each))
        lacking = claims.bytes_lacking(claim) + OVERHEAD + coming + spare - disk.free
        if self.max_bytes is not None:
            lacking = max(lacking, claims.bytes_held(claim) - self.max_bytes)
        return lacking

    def refusal(self, about: Subject, claim: Claim, lacking: int) -> str:
        """Return the message on a claim that there is no room for."""
        need = sum(piece.size for piece in claim.pieces)
        start = f"{about.where}: not fetched, it needs {_gb(need)} and {_gb(lacking)} are missing"
        if self.never_fits(claim):
            return f"{start}: cache.max_gb={(self.max_bytes or 0) / 1e9:g} is less than it takes; raise it"
        cache = self.claims.cache
        return (
            f"{start}: the disk of {cache} has {_gb(shutil.disk_usage(cache).free)} free; free "
            "space, set cache.max_gb to remove what is measured, or cache.folder to another disk"
        )


def _gb(count: int) -> str:
    return f"{count / 1e9:.3g} GB"
