"""The hub's cache as a bounded store: checkpoints come in when there is room, and go when they are measured.

Several threads and processes may share one folder: its bound holds for all of them together, a checkpoint
that anybody still needs stays, and what was there before tracker is never touched.
"""

import errno
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event

from filelock import FileLock

from tracker.checkpoints import answers, cached, download, files, listing, parts
from tracker.checkpoints.claims import Claim, Claims, claim_id
from tracker.checkpoints.remote import Inspected
from tracker.checkpoints.room import Room
from tracker.errors import CheckpointError
from tracker.records import Checkpoint, Fetched

WAIT_SECONDS = 0.1

BROKEN = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""Errors of a cache that others may write; any other error of its locks means that it may only be read."""


@dataclass(frozen=True)
class Hold:
    """A checkpoint that lies in the cache for as long as it is held."""

    fetched: Fetched
    claim: Claim | None = None
    lease: FileLock | None = None
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
    head: bool = True
    """Whether unembeddings are needed; if not, part of a checkpoint's weights may be all that is fetched."""

    @property
    def claims(self) -> Claims:
        """Who holds what in this folder."""
        return Claims(self.folder)

    def fetch(self, checkpoint: Checkpoint, inspected: Inspected | CheckpointError | None = None) -> Hold:
        """Bring a checkpoint in, waiting for room as long as some may come.

        A pinned commit that the cache holds whole costs no request; without a network, the commit last seen
        under the revision serves.

        Args:
            checkpoint: of kind ``hub``.
            inspected: the hub's answer about it, where it has been asked already; not asked again then.

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
        try:
            if inspected is None and checkpoint.commit in self._noted(checkpoint):
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
        held = self._held(checkpoint, inspected)
        return held or self._brought(checkpoint, inspected)

    def _noted(self, checkpoint: Checkpoint) -> set[str | None]:
        """The commits last seen under a checkpoint's revision."""
        places = [self.folder] if self.head else [self.folder, parts.root(self.folder)]
        return {cached.noted(checkpoint.location, checkpoint.revision, each) for each in places} - {None}

    def find(self, checkpoint: Checkpoint) -> Fetched | None:
        """Find a checkpoint of which the cache has all that is needed; makes no request and holds nothing."""
        places = [self.folder] if self.head else [self.folder, parts.root(self.folder)]
        return next((found for each in places if (found := cached.find(checkpoint, each))), None)

    def _held(self, checkpoint: Checkpoint, inspected: Inspected | None = None) -> Hold | None:
        """A hold on a checkpoint of which the cache has all that is needed; None where it has not."""
        whole = self._held_in(self.folder, checkpoint, inspected)
        if whole is not None or self.head:
            return whole
        return self._held_in(parts.root(self.folder), checkpoint, inspected)

    def _held_in(self, cache: Path, checkpoint: Checkpoint, inspected: Inspected | None) -> Hold | None:
        commit = None if inspected is None else inspected.commit
        wanted = None if inspected is None else [file.name for file in inspected.files]
        commit = commit or checkpoint.commit
        commit = commit or cached.noted(checkpoint.location, checkpoint.revision, cache)
        if commit is None or not cached.is_commit(commit) or not cache.is_dir():
            return None
        pinned = replace(checkpoint, commit=commit)
        id = claim_id(checkpoint.location, commit, cache != self.folder, checkpoint.subfolder)
        try:
            with self.claims.alone():
                claim = self.claims.of(id)
                if claim is not None and not claim.whole:
                    return None
                names = wanted if claim is None else [piece.name for piece in claim.pieces]
                found = cached.find(pinned, cache, names)
                lease = None if claim is None or found is None else self.claims.lease(claim)
        except OSError as error:
            if error.errno in BROKEN:
                raise  # without a lease another sweep could remove it while it is loaded
            claim, lease, found = None, None, cached.find(pinned, cache, wanted)
        return None if found is None else Hold(replace(found, checkpoint=checkpoint), claim, lease)

    def _brought(self, checkpoint: Checkpoint, inspected: Inspected) -> Hold:
        subject = answers.Subject(checkpoint.location, checkpoint.revision, checkpoint.label)
        request = download.Request(subject, inspected.commit, self.folder, self.stop)
        inspected = listing.with_digests(inspected, subject)
        part = None if self.head else parts.without_head(inspected, subject, request.pause)
        if part is not None:
            smaller = tuple(part.stored if file is part.file else file for file in inspected.files)
            apart = replace(request, cache=parts.root(self.folder))
            try:
                return self._received(checkpoint, apart, Inspected(inspected.commit, smaller), part)
            except parts.Refused:  # whole files are answered in another way, and their hashes are checked
                with self.claims.alone():
                    self._remove_idle(checkpoint, inspected.commit)
        return self._received(checkpoint, request, inspected)

    def _received(
        self,
        checkpoint: Checkpoint,
        request: download.Request,
        inspected: Inspected,
        part: parts.Part | None = None,
    ) -> Hold:
        claim, lease = self._claimed(request, inspected, checkpoint.subfolder)
        snapshot = request.repository / "snapshots" / request.commit
        hold = Hold(Fetched(checkpoint, snapshot, request.commit), claim, lease)
        started = time.monotonic()
        try:
            received = self._transferred(request, inspected, claim, part)
            names = [file.name for file in inspected.files]
            folder = cached.model_folder(replace(checkpoint, commit=request.commit), request.cache, names)
            files.whole(folder, checkpoint.label)
            self._note_whole(request, checkpoint, claim)
            fetched = replace(hold.fetched, path=folder)
            return replace(hold, fetched=fetched, received=received, seconds=time.monotonic() - started)
        except BaseException:
            self.release(hold)
            raise

    def _claimed(
        self, request: download.Request, inspected: Inspected, folder: str
    ) -> tuple[Claim, FileLock]:
        """A claim on a checkpoint and a lease of it, once there is room for it."""
        about, claims = request.about, self.claims
        room = Room(claims, self.max_bytes)
        new = Claim(
            about.repo,
            str(about.revision),
            request.commit,
            (),
            keep=self.max_bytes is None,
            part=request.cache != self.folder,
            folder=folder,
        )
        while True:
            with claims.alone():
                claim = claims.made(new, inspected.files)
                lacking = room.lacking(claim)
                if lacking <= 0:
                    for place in (request.repository / "blobs", request.snapshot):
                        place.mkdir(parents=True, exist_ok=True)
                    claims.write(claim)
                    return claim, claims.lease(claim)
                held = any(claims.is_leased(each) for each in claims.all() if not each.keep)
            if not held or room.never_fits(claim):
                raise answers.DiskFull(room.refusal(about, claim, lacking))
            request.pause(WAIT_SECONDS)

    def _transferred(
        self, request: download.Request, inspected: Inspected, claim: Claim, part: parts.Part | None
    ) -> int:
        blobs = request.repository / "blobs"
        pieces = {piece.name: piece for piece in claim.pieces}
        items = [
            download.Item(
                file,
                blobs / pieces[file.name].blob,
                self.claims.blob_lock(pieces[file.name].blob),
                trusted=claim.whole or not pieces[file.name].ours,
                fetch=partial(parts.fetch, part=part) if part and file == part.stored else None,
            )
            for file in inspected.files
        ]
        return download.bring_all(request, items)

    def _note_whole(self, request: download.Request, checkpoint: Checkpoint, claim: Claim) -> None:
        """Record that a claim's files are there; a part of them is not needed any more once all are."""
        for revision in {claim.revision, str(request.about.revision)}:
            cached.note(request.about.repo, revision, claim.commit, request.cache)
        with self.claims.alone():
            self.claims.write(replace(self.claims.of(claim.id) or claim, whole=True))
            if not claim.part:
                self._remove_idle(checkpoint, claim.commit)

    def _remove_idle(self, checkpoint: Checkpoint, commit: str) -> None:
        """Remove the part of a checkpoint's weights that is there, unless somebody holds it."""
        claim = self.claims.of(claim_id(checkpoint.location, commit, part=True, folder=checkpoint.subfolder))
        if claim is not None and not self.claims.is_leased(claim):
            self.claims.remove(claim)

    def release(self, hold: Hold, *, measured: bool = False) -> None:
        """Give a hold back.

        Args:
            hold: from ``fetch``.
            measured: its result is stored; where the cache is bounded, what tracker brought in for it goes,
                unless somebody else still holds it.
        """
        if hold.lease is None or hold.claim is None:
            return
        with self.claims.alone():
            Path(hold.lease.lock_file).unlink(missing_ok=True)
            hold.lease.release()
            claim = self.claims.of(hold.claim.id)
            if claim is None or claim.keep or self.claims.is_leased(claim):
                return
            if measured and self.max_bytes is not None:
                self.claims.remove(claim)

    def tidy(self, needed: Collection[tuple[str, str]] = ()) -> int:
        """Remove what killed or ended sweeps left: half-written files, and what was to be removed.

        Args:
            needed: (repository, revision) of what is about to be fetched; that stays, and is gone on with.

        Returns:
            Number of checkpoints cleaned up.
        """
        cleaned = 0
        if not self.claims.folder.is_dir():
            return 0
        try:
            with self.claims.alone():
                for claim in self.claims.all():
                    if (claim.repo, claim.revision) in needed or self.claims.is_leased(claim):
                        continue
                    if not claim.keep or not claim.whole:
                        self.claims.remove(claim)
                        cleaned += 1
        except OSError as error:
            if error.errno in BROKEN:
                raise
        return cleaned
