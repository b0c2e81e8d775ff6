"""The hub's cache as a bounded store: checkpoints come in when there is room, and go when they are measured.

Several threads and processes may share one folder: its bound holds for all of them together, a checkpoint
that anybody still needs stays, and what was there before tracker is never touched.
"""

import os
import shutil
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

from tracker.checkpoints import answers, cached, listing
from tracker.checkpoints import download as transfer
from tracker.checkpoints import files as weights
from tracker.checkpoints.claims import OVERHEAD, Claim, Claims, on_disk
from tracker.checkpoints.listing import Inspected
from tracker.errors import CheckpointError
from tracker.records import Checkpoint, Fetched

FILES_AT_ONCE = 4
"""Files of one checkpoint that arrive side by side."""
WAIT_SECONDS = 0.1
SPARE = 0.005
"""Share of a disk that is left free, up to MOST_SPARE bytes."""
MOST_SPARE = 200_000_000


@dataclass(frozen=True)
class Hold:
    """A checkpoint that lies in the cache for as long as it is held."""

    fetched: Fetched
    claim: Claim | None = None
    lease: int | None = None
    received: int = 0
    """Bytes that came over the network for it, in ``seconds``."""
    seconds: float = 0.0


@dataclass(frozen=True)
class CheckpointCache:
    """Fetches checkpoints into one cache folder, holds them while they are needed, removes them after.

    ``max_bytes`` bounds what tracker brought in and is to remove again, whoever of several processes
    brought it; with None, everything fetched stays.
    """

    folder: Path
    max_bytes: int | None = None
    stop: Event = field(default_factory=Event)
    """Ends waiting and fetching early."""

    def fetch(self, checkpoint: Checkpoint, inspected: Inspected | CheckpointError | None = None) -> Hold:
        """Brings a checkpoint in, waiting for room as long as some may come.

        Args:
            checkpoint: of kind ``hub``.
            inspected: what the hub said of it, where it has been asked already; not asked again then.

        Raises:
            MissingCheckpoint: the revision does not exist.
            DiskFull: there is no room, and none will come.
            CheckpointError: anything else that is wrong with it.
        """
        cached.check_revision(checkpoint.location, checkpoint.revision)
        try:
            return self._fetched(checkpoint, inspected)
        except OSError as error:
            raise CheckpointError(
                f"{checkpoint.label}: cache.folder={self.folder}: cannot be written or locked: {error}; "
                "give a folder on a local disk that you may write to"
            ) from error

    def _fetched(self, checkpoint: Checkpoint, inspected: Inspected | CheckpointError | None) -> Hold:
        repo, revision = checkpoint.location, checkpoint.revision
        known = cached.noted(repo, revision, self.folder)
        try:
            if inspected is None and known is not None and checkpoint.commit == known:
                held = self._held(checkpoint)
                if held is not None:
                    return held
            inspected = listing.inspect(checkpoint) if inspected is None else inspected
            if isinstance(inspected, CheckpointError):
                raise inspected
        except answers.Unreachable:
            held = self._held(checkpoint)
            if held is None:
                raise
            return held
        held = self._held(checkpoint, inspected.commit) if known == inspected.commit else None
        return held or self._brought(checkpoint, inspected)

    def _held(self, checkpoint: Checkpoint, commit: str | None = None) -> Hold | None:
        """A hold on a checkpoint that the cache has whole, at this commit; None where it has not."""
        claims = Claims(self.folder)
        if not self.folder.is_dir():
            return None
        with claims.alone():
            commit = commit or checkpoint.commit
            commit = commit or cached.noted(checkpoint.location, checkpoint.revision, self.folder)
            claim = None if commit is None else claims.of(checkpoint.location, commit)
            names = None if claim is None else [piece.name for piece in claim.pieces]
            found = cached.find(replace(checkpoint, commit=commit), self.folder, names)
            if found is None:
                return None
            found = replace(found, checkpoint=checkpoint)
            return Hold(found, claim, None if claim is None else claims.lease(claim))

    def _brought(self, checkpoint: Checkpoint, inspected: Inspected) -> Hold:
        address = transfer.Address(
            checkpoint.location, checkpoint.revision, inspected.commit, checkpoint.label, self.stop
        )
        claim, lease = self._claimed(address, inspected)
        snapshot = cached.repository(address.repo, self.folder) / "snapshots" / address.commit
        hold = Hold(Fetched(checkpoint, snapshot, address.commit), claim, lease)
        started = time.monotonic()
        try:
            received = self._transferred(address, inspected, claim)
            return replace(hold, received=received, seconds=time.monotonic() - started)
        except BaseException:
            self.release(hold)
            raise

    def _claimed(self, address: transfer.Address, inspected: Inspected) -> tuple[Claim, int]:
        """Claims a checkpoint and takes a lease, once there is room for it."""
        claims, keep = Claims(self.folder), self.max_bytes is None
        while True:
            with claims.alone():
                claim = claims.made(address.repo, address.revision, address.commit, inspected.files, keep)
                lacking = self._lacking(claims, claim)
                if lacking <= 0:
                    root = cached.repository(claim.repo, self.folder)
                    for place in (root / "blobs", root / "snapshots" / claim.commit):
                        place.mkdir(parents=True, exist_ok=True)
                    claims.write(claim)
                    return claim, claims.lease(claim)
                held = any(claims.is_leased(each) for each in claims.all() if not each.keep)
            if not held or self._never_fits(claim):
                raise answers.DiskFull(self._no_room(address, claim, lacking))
            address.pause(WAIT_SECONDS)

    def _never_fits(self, claim: Claim) -> bool:
        need = OVERHEAD + sum(on_disk(piece.size) for piece in claim.pieces if piece.ours)
        return self.max_bytes is not None and need > self.max_bytes

    def _lacking(self, claims: Claims, claim: Claim) -> int:
        """Bytes that are missing for a claim, after removing what nobody needs where that helps."""
        lacking = self._short_of(claims, claim)
        for idle in claims.all():
            if lacking <= 0:
                break
            if not idle.keep and idle.id != claim.id and not claims.is_leased(idle):
                claims.remove(idle)
                lacking = self._short_of(claims, claim)
        return lacking

    def _short_of(self, claims: Claims, claim: Claim) -> int:
        disk = shutil.disk_usage(self.folder)
        spare = min(int(SPARE * disk.total), MOST_SPARE)
        arriving = [each for each in claims.all() if each.id != claim.id and not each.whole]
        coming = sum(claims.bytes_lacking(each) for each in arriving if claims.is_leased(each))
        lacking = claims.bytes_lacking(claim) + OVERHEAD + coming + spare - disk.free
        if self.max_bytes is not None:
            lacking = max(lacking, claims.bytes_held(claim) - self.max_bytes)
        return lacking

    def _no_room(self, address: transfer.Address, claim: Claim, lacking: int) -> str:
        need = sum(piece.size for piece in claim.pieces)
        told = f"{address.where}: not fetched, it needs {_gb(need)} and {_gb(lacking)} are missing"
        if self._never_fits(claim):
            return f"{told}: cache.max_gb={(self.max_bytes or 0) / 1e9:g} is less than it takes; raise it"
        return (
            f"{told}: the disk of {self.folder} has {_gb(shutil.disk_usage(self.folder).free)} free; free "
            "space, set cache.max_gb to remove what is measured, or cache.folder to another disk"
        )

    def _transferred(self, address: transfer.Address, inspected: Inspected, claim: Claim) -> int:
        root = cached.repository(address.repo, self.folder)
        snapshot = root / "snapshots" / address.commit
        blobs = {piece.name: root / "blobs" / piece.blob for piece in claim.pieces}
        with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="fetching") as pool:
            jobs = [pool.submit(transfer.bring, address, file, blobs[file.name]) for file in inspected.files]
            received = sum(job.result() for job in jobs)
        for name, blob in blobs.items():
            _link(snapshot / name, blob)
        weights.whole(snapshot, address.who)
        cached.note(address.repo, address.revision, address.commit, self.folder)
        claims = Claims(self.folder)
        with claims.alone():
            claims.write(replace(claims.of(claim.repo, claim.commit) or claim, whole=True))
        return received

    def release(self, hold: Hold, *, measured: bool = False) -> None:
        """Gives a hold back.

        Args:
            hold: from ``fetch``.
            measured: its result is stored; where the cache is bounded, what tracker brought in for it goes,
                unless somebody else still holds it.
        """
        if hold.lease is None or hold.claim is None:
            return
        os.close(hold.lease)
        claims = Claims(self.folder)
        with claims.alone():
            claim = claims.of(hold.claim.repo, hold.claim.commit)
            if claim is None or claim.keep or claims.is_leased(claim):
                return
            if measured and self.max_bytes is not None:
                claims.remove(claim)

    def tidy(self, needed: Collection[tuple[str, str]] = ()) -> int:
        """Removes what killed or ended sweeps left: half-written files, and what was to be removed.

        Args:
            needed: (repository, revision) of what is about to be fetched; that stays, and is gone on with.

        Returns:
            Checkpoints cleaned up.
        """
        claims, cleaned = Claims(self.folder), 0
        if not claims.folder.is_dir():
            return 0
        with claims.alone():
            for claim in claims.all():
                if (claim.repo, claim.revision) in needed or claims.is_leased(claim):
                    continue
                if not claim.keep or not claim.whole:
                    claims.remove(claim)
                    cleaned += 1
        return cleaned


def _link(link: Path, blob: Path) -> None:
    target = os.path.relpath(blob, link.parent)
    if link.is_symlink() and os.readlink(link) == target:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _gb(count: int) -> str:
    return f"{count / 1e9:.3g} GB"
