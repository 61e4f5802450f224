"""The list of callers as a JSON file: replaced as a whole, read again after a change, believed only when it is right.

    {"version": 1, "callers": [{"name": "owner", "credential": "certificate", "roles": ["view", "administer"],
                                "added_at": "2026-11-20T12:00:00Z"}]}

A caller with a token has `token_sha256`; `expires_at` and `request_sha256` may be there.
"""

import contextlib
import json
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

from orchestrator.adapters.times import time_text
from orchestrator.domain.callers import Caller, Credential, Role, is_name
from orchestrator.domain.errors import OrchestratorError, Reason
from orchestrator.service.callers import CallerList, CallerRecord, CallersUnreadableError, Records

VERSION: Final = 1
MAX_BYTES: Final = 4 * 1024 * 1024
LOOK_SECONDS: Final = 0.25
"""How often at most the file is looked at; calls in between cost no system call."""
OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH

_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NEEDED: Final = frozenset({"name", "credential", "roles", "added_at"})
_OPTIONAL: Final = frozenset({"expires_at", "token_sha256", "request_sha256"})

_log = logging.getLogger(__name__)

E = TypeVar("E", bound=StrEnum)
_Stamp = tuple[int, int, int, int]


class CallersFile:
    """`CallerRecords` in a file of the state directory."""

    def __init__(self, path: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._monotonic = monotonic
        self._look_again = 0.0
        self._seen: _Stamp | None = None
        self._list: CallerList | None = None
        self._fault = ""

    def current(self) -> CallerList:
        if self._monotonic() >= self._look_again:
            self._look()
        if self._list is None:
            raise CallersUnreadableError(
                Reason.STATE_FORBIDS,
                f"nobody is served: the list of callers {self._fault}",
                f"Mend {self._path.name} in the orchestrator's state (gonogo doctor looks at it), or move it away and "
                "write a new one with gonogo caller init.",
            )
        return self._list

    def change(self, edit: Callable[[Records], Iterable[CallerRecord]]) -> None:
        self._look()
        changed = tuple(edit(self.current().records))
        try:
            _replace(self._path, _text_of(changed).encode())
        except OSError as error:
            message = f"the list of callers can not be written: {error.strerror}"
            raise OrchestratorError(Reason.INTERNAL, message, "Look at the orchestrator's state directory.") from error
        self._look()

    def _look(self) -> None:
        self._look_again = self._monotonic() + LOOK_SECONDS
        stamp = _stamp(self._path)
        if stamp is not None and stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._list, self._fault = CallerList(_read(self._path)), ""
            _log.info("the list of callers was read: %d", len(self._list.records))
        except _FaultyFileError as error:
            if str(error) != self._fault:
                _log.error("nobody is served: the list of callers %s", error)
            self._list, self._fault = None, str(error)


class _FaultyFileError(Exception):
    """What is wrong with the file, as the end of a sentence."""


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode


def _read(path: Path) -> Records:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _FaultyFileError("is missing") from None
    except OSError as error:
        raise _FaultyFileError(f"can not be read: {error.strerror}") from None
    if mode & OTHERS_WRITE:
        raise _FaultyFileError(f"may be written by others: its mode is {stat.S_IMODE(mode):04o}, and must be 0600")
    if len(data) > MAX_BYTES:
        raise _FaultyFileError("is too large")
    return _records_of(data)


def _records_of(data: bytes) -> Records:
    try:
        written = json.loads(data, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise _FaultyFileError(f"is no JSON: {error}") from None
    if not isinstance(written, dict) or written.keys() != {"version", "callers"}:
        raise _FaultyFileError('is not an object of "version" and "callers"')
    if type(written["version"]) is not int or written["version"] != VERSION:
        raise _FaultyFileError(f"is not of version {VERSION}")
    if not isinstance(written["callers"], list):
        raise _FaultyFileError('has no list "callers"')
    records = tuple(_record(f"callers[{at}]", entry) for at, entry in enumerate(written["callers"]))
    _refuse_doubles("name", (record.caller.name for record in records))
    _refuse_doubles("token_sha256", (record.token_digest for record in records if record.token_digest))
    return records


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        message = "a key stands twice in one object"
        raise ValueError(message)
    return found


def _record(place: str, entry: Any) -> CallerRecord:
    if not isinstance(entry, dict) or not entry.keys() >= _NEEDED or entry.keys() - _NEEDED - _OPTIONAL:
        raise _FaultyFileError(f"is wrong at {place}: it needs {_names(_NEEDED)}, and may have {_names(_OPTIONAL)}")
    caller = Caller(
        name=_name(place, entry["name"]),
        credential=_choice(f"{place}.credential", entry["credential"], Credential),
        roles=_roles(f"{place}.roles", entry["roles"]),
        added_at=_time(f"{place}.added_at", entry["added_at"]),
        expires_at=_time(f"{place}.expires_at", entry["expires_at"]) if "expires_at" in entry else None,
    )
    if ("token_sha256" in entry) is not (caller.credential is Credential.TOKEN):
        raise _FaultyFileError(f"is wrong at {place}: token_sha256 stands where, and only where, credential is token")
    return CallerRecord(
        caller=caller,
        token_digest=_hash(place, entry, "token_sha256"),
        request_digest=_hash(place, entry, "request_sha256"),
    )


def _names(keys: frozenset[str]) -> str:
    return ", ".join(sorted(keys))


def _name(place: str, value: object) -> str:
    if not isinstance(value, str) or not is_name(value):
        raise _FaultyFileError(f"is wrong at {place}.name: {value!r} is no caller's name")
    return value


def _roles(place: str, value: object) -> frozenset[Role]:
    if not isinstance(value, list) or not value:
        raise _FaultyFileError(f"is wrong at {place}: it is not a list of roles")
    roles = [_choice(place, item, Role) for item in value]
    _refuse_doubles(place, roles)
    return frozenset(roles)


def _choice(place: str, value: object, kind: type[E]) -> E:
    found = {item.value: item for item in kind}.get(value) if isinstance(value, str) else None
    if found is None:
        raise _FaultyFileError(f"is wrong at {place}: {value!r} is none of {', '.join(kind)}")
    return found


def _time(place: str, value: object) -> datetime:
    with contextlib.suppress(ValueError):
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
        if found is not None and found.tzinfo is not None:
            return found.astimezone(UTC)
    raise _FaultyFileError(f"is wrong at {place}: {value!r} is no time such as 2026-11-20T12:00:00Z")


def _hash(place: str, entry: Mapping[str, object], key: str) -> str:
    value = entry.get(key, "")
    if key in entry and not (isinstance(value, str) and _SHA256.fullmatch(value)):
        raise _FaultyFileError(f"is wrong at {place}.{key}: it is not 64 hexadecimal digits")
    return str(value)


def _refuse_doubles(what: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise _FaultyFileError(f"has a {what} twice: {value}")
        seen.add(value)


def _text_of(records: Records) -> str:
    return json.dumps({"version": VERSION, "callers": [_written(record) for record in records]}, indent=2) + "\n"


def _written(record: CallerRecord) -> Mapping[str, object]:
    caller = record.caller
    return {
        "name": caller.name,
        "credential": caller.credential.value,
        "roles": [role.value for role in Role if role in caller.roles],
        "added_at": time_text(caller.added_at),
        **({"expires_at": time_text(caller.expires_at)} if caller.expires_at else {}),
        **({"token_sha256": record.token_digest} if record.token_digest else {}),
        **({"request_sha256": record.request_digest} if record.request_digest else {}),
    }


def _replace(path: Path, data: bytes) -> None:
    """Put new content in a file's place, so that a reader and a crash see the one or the other."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    with _folder(path.parent) as folder:
        os.fsync(folder)


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
