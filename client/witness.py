"""The client as a witness of both audit logs: it keeps the newest checkpoint of each, and checks the next against it.

A log can show a different history to whoever it likes, but not to somebody who kept what it showed before. A checkpoint
that does not continue the kept one, or is older than it, is a fork: nothing is approved then, and the kept one stays.

Two commands may look at the same time. What each was shown is checked against what it had read before it asked, and the
kept checkpoint is only replaced if nobody else replaced it meanwhile.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.errors import ClientError
from gonogo.merkle import verify_consistency
from gonogo.notes import Checkpoint, NoteError, log_origin, open_note
from gonogo.signatures import PublicKey

FORKED = "AUDIT_FORKED"
MAX_FILE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A checkpoint that this side keeps."""

    note: str
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """The checkpoints that are kept in one directory, one file for each log."""

    directory: Path

    def path(self, origin: str) -> Path:
        """Return the file of a log."""
        return self.directory / f"{origin.replace('/', '_')}.note"

    def origin_of(self, service: str) -> str:
        """Return the name of the log of a service that is kept here, empty where none is.

        Raises:
            ClientError: more than one is, or the file is about another log than its name says.
        """
        start = log_origin(service, "")
        names = sorted(self.directory.glob(f"{start.replace('/', '_')}*.note"))
        if len(names) > 1:
            shown = ", ".join(str(name) for name in names)
            remedy = "keep the one of the service that you use, and move the others away"
            raise ClientError(FORKED, f"more than one log of one {service} is kept: {shown}", remedy)
        if not names:
            return ""
        with names[0].open("rb") as file:
            origin = file.readline(MAX_FILE).decode("utf-8", "replace").rstrip("\n")
        if self.path(origin) != names[0]:
            raise _damaged(names[0], f"it is about {origin[:100]!r}")
        return origin

    def kept(self, origin: str, key: PublicKey) -> Kept | None:
        """Return the kept checkpoint of a log, None where there is none.

        Raises:
            ClientError: the file is there and is not a checkpoint of that log under that key.
        """
        path = self.path(origin)
        try:
            with path.open("rb") as file:
                note = file.read(MAX_FILE).decode("utf-8")
            return Kept(note=note, checkpoint=open_note(note, key, origin))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            message = f"the kept checkpoint {path} can not be used: {error}"
            remedy = (
                "bring the file back from a backup; delete it only where the log or its key was replaced on purpose"
            )
            raise ClientError(FORKED, message, remedy) from None

    def check(
        self, known: Kept | None, note: str, consistency: Sequence[bytes], *, origin: str, key: PublicKey
    ) -> Kept:
        """Check the newest checkpoint of a log against the one that was read before it was asked for, and keep it.

        Args:
            known: what `kept` returned before the log was asked.
            note: the checkpoint that the log gave.
            consistency: the proof that it continues `known`.
            origin: the name of the log.
            key: its key.

        Raises:
            ClientError: it is no checkpoint of the log, or does not continue the kept one: reason AUDIT_FORKED.
        """
        try:
            checkpoint = open_note(note, key, origin)
        except NoteError as error:
            raise ClientError(FORKED, f"{origin} gave a checkpoint that is none: {error}", _REMEDY) from None
        if known is not None and not _continues(known.checkpoint, checkpoint, consistency):
            raise forked(known.checkpoint, checkpoint)
        fresh = Kept(note=note, checkpoint=checkpoint)
        self._replace(known, fresh, origin, key)
        return fresh

    def _replace(self, known: Kept | None, fresh: Kept, origin: str, key: PublicKey) -> None:
        with self._locked() as directory:
            present = self.kept(origin, key)
            if present is not None and present.checkpoint.size == fresh.checkpoint.size:
                if present.checkpoint.root != fresh.checkpoint.root:
                    raise forked(present.checkpoint, fresh.checkpoint)
                return
            if present == known:
                _write(self.path(origin), fresh.note, directory)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            message = f"no checkpoint can be kept in {self.directory}: {error.strerror}"
            raise ClientError("FILE_UNREADABLE", message, "make the directory writable for yourself") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)


def _damaged(path: Path, why: str) -> ClientError:
    remedy = "bring the file back from a backup; delete it only where the log or its key was replaced on purpose"
    return ClientError(FORKED, f"the kept checkpoint {path} can not be used: {why}", remedy)


def forked(kept: Checkpoint, shown: Checkpoint) -> ClientError:
    """Return the error for a log that shows another history than before."""
    what = "went back" if shown.size < kept.size else "shows another history than before"
    message = (
        f"the audit log {kept.origin} {what}: kept {kept.size} entries with root {kept.root.hex()}, "
        f"shown {shown.size} entries with root {shown.root.hex()}"
    )
    return ClientError(FORKED, message, _REMEDY)


_REMEDY = (
    "approve nothing and keep both checkpoints as evidence; ask the service's operator whether its database was "
    "restored or replaced, and only then delete the note in the witness directory"
)


def _continues(kept: Checkpoint, shown: Checkpoint, consistency: Sequence[bytes]) -> bool:
    return verify_consistency(kept.size, kept.root, shown.size, shown.root, consistency)


def _write(path: Path, note: str, directory: int) -> None:
    """Replace a file as a whole, durably: a half-written note would look like a fork, and a lost one hides it."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    with fresh.open("x", encoding="utf-8") as file:
        file.write(note)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    os.fsync(directory)
