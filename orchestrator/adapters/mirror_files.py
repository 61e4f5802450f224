"""Files that are appended to behind a stored cursor.

The order is what makes a mirror whole after anything: the lines are written, made durable, and only then does the
stored cursor move over them. A crash in between leaves a file that is longer than its cursor says; the surplus, be it
whole lines or half of one, is cut and the same bytes are written again. A file that is shorter than its cursor says,
or a cursor that can not be read, is begun again from the first event.
"""

import contextlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from errno import EEXIST
from pathlib import Path
from typing import Any, Final

from orchestrator.service.event_log import StoredEvent

CURSORS_FILE: Final = "mirrors.json"
FORMAT: Final = 2
"""Raised when lines look different from then on: every mirror is then written anew in the new form."""

_MOST: Final = 2**63 - 1
"""What the log and the file system can count to."""

# Never followed through a link, and never waited for where somebody put a pipe in the file's place.
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """How far a file is: the last event that went into it, that event's hash, and the file's length then."""

    position: int = 0
    leaf: str = ""
    length: int = 0


_BEGINNING: Final = Cursor()


class MirrorFolder:
    """`MirrorFiles` in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cursors: dict[str, Cursor] | None = None
        self._changed: set[str] = set()
        """Files whose cursor moved since the cursors were stored."""

    def position(self, name: str) -> int:
        """See `MirrorFiles`."""
        cursor = self._cursor(name)
        try:
            found = (self._folder / name).lstat()
        except FileNotFoundError:
            found = None
        if found is None or not stat.S_ISREG(found.st_mode) or found.st_size != cursor.length:
            with self._opened(name, os.O_CREAT) as file:
                cursor = self._mended(name, file, cursor)
        return cursor.position

    def leaf(self, name: str) -> str:
        """See `MirrorFiles`."""
        return self._cursor(name).leaf

    def restart(self, name: str) -> None:
        """See `MirrorFiles`."""
        with self._opened(name, os.O_CREAT) as file:
            self._begin_again(name, file)

    def append(self, name: str, lines: Iterable[str], reached: StoredEvent) -> None:
        """See `MirrorFiles`."""
        cursor = self._cursor(name)
        data = "".join(line + "\n" for line in lines).encode()
        if data:
            with self._opened(name) as file:
                if os.fstat(file).st_size != cursor.length:
                    raise OSError(EEXIST, "somebody else writes to the file", name)
                _write_all(file, data, cursor.length)
        length = cursor.length + len(data)
        self._move(name, Cursor(position=reached.pos, leaf=reached.leaf_hash.hex(), length=length))

    def keep(self) -> None:
        """See `MirrorFiles`."""
        if not self._changed or self._cursors is None:
            return
        try:
            for name in sorted(self._changed):
                with self._opened(name) as file:
                    os.fdatasync(file)
        except OSError:
            # What the kernel could not write it may have dropped, and it says so once: only what is stored counts.
            self._cursors = None
            self._changed.clear()
            raise
        self._store(self._cursors)
        self._changed.clear()

    def _cursor(self, name: str) -> Cursor:
        if self._cursors is None:
            self._cursors = _read(self._folder / CURSORS_FILE)
        return self._cursors.get(name, _BEGINNING)

    def _move(self, name: str, cursor: Cursor) -> None:
        self._cursors = {**(self._cursors or {}), name: cursor}
        self._changed.add(name)

    def _mended(self, name: str, file: int, cursor: Cursor) -> Cursor:
        size = os.fstat(file).st_size
        if size < cursor.length:
            return self._begin_again(name, file)
        if size > cursor.length:
            os.ftruncate(file, cursor.length)
        return cursor

    def _begin_again(self, name: str, file: int) -> Cursor:
        os.ftruncate(file, 0)
        self._move(name, _BEGINNING)
        return _BEGINNING

    @contextlib.contextmanager
    def _opened(self, name: str, flags: int = 0) -> Iterator[int]:
        path = self._folder / name
        file = os.open(path, _FLAGS | flags, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(EEXIST, "something that is no file is in the way", str(path))
            yield file
        finally:
            os.close(file)

    def _store(self, cursors: Mapping[str, Cursor]) -> None:
        """Replace the stored cursors at once; were this lost, the mirrors would be written again."""
        files = {name: asdict(cursor) for name, cursor in sorted(cursors.items())}
        with self._opened(f".{CURSORS_FILE}", os.O_CREAT | os.O_TRUNC) as file:
            _write_all(file, json.dumps({"format": FORMAT, "files": files}).encode() + b"\n", 0)
        (self._folder / f".{CURSORS_FILE}").replace(self._folder / CURSORS_FILE)


def _write_all(file: int, data: bytes, length: int) -> None:
    """Append all of it, or nothing: half a line would stay there for as long as the disk is full."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(file, rest) :]
    except OSError:
        with contextlib.suppress(OSError):  # what is left behind, the next look cuts off
            os.ftruncate(file, length)
        raise


def _read(path: Path) -> dict[str, Cursor]:
    """Return the stored cursors, none where they are missing, of another format, or not what was written."""
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        if found["format"] != FORMAT:
            return {}
        return {name: _checked(Cursor(**cursor)) for name, cursor in found["files"].items()}
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _checked(cursor: Cursor) -> Cursor:
    if type(cursor.position) is not int or type(cursor.length) is not int or type(cursor.leaf) is not str:
        raise TypeError("not a cursor")
    if not (0 <= cursor.position <= _MOST and 0 <= cursor.length <= _MOST):
        raise ValueError("not a cursor")
    return cursor
