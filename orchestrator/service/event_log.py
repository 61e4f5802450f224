"""The event log: the port and its value types.

One log holds every stream. `pos` counts all events from 1 without a gap, in the order in which they were
committed; `version` counts the events of one stream from 1 without a gap. Time is information, never order.
"""

import hashlib
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import InitVar, dataclass
from typing import Any, Final, NamedTuple, NoReturn, Protocol

NO_STREAM: Final = 0
"""Expected version of a stream that must not exist yet."""
ANY: Final = -1
"""Expected version of an append that does not depend on what the stream holds."""

MAX_EVENT_BYTES: Final = 1 << 20
MAX_DOCUMENT_BYTES: Final = 64 << 20
MAX_NAME_CHARACTERS: Final = 512
PAGE: Final = 500


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_strict_json = json.JSONDecoder(parse_constant=_refuse_constant)


def _require_json(what: str, text: str, *, just_encoded: bool) -> None:
    """Refuses what could not stand as it is in one line of an export.

    Reading a text again costs more than writing it did. So whoever has it fresh from a JSON encoder says so, and only
    what an encoder lets through is looked for.
    """
    if just_encoded:
        text.encode()  # a UnicodeEncodeError is a ValueError
        return
    if "\n" in text or "\r" in text:
        raise ValueError(f"{what} must be one line of JSON")
    try:
        _strict_json.decode(text)
        text.encode()  # a lone surrogate has no UTF-8 form
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not JSON: {error}") from error


def _require_name(what: str, text: str) -> None:
    if not 0 < len(text) <= MAX_NAME_CHARACTERS or not text.isprintable():
        raise ValueError(f"{what} must be 1 to {MAX_NAME_CHARACTERS} printable characters")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """One event to append. `data` is a JSON object on one line: those very bytes are stored and hashed."""

    type: str
    schema_version: int
    occurred_at_us: int
    actor: str
    data: str
    just_encoded: InitVar[bool] = False
    """Whether `data` comes straight from a JSON encoder."""

    def __post_init__(self, just_encoded: bool) -> None:
        _require_name("type", self.type)
        _require_name("actor", self.actor)
        if not self.data.startswith("{") or len(self.data) > MAX_EVENT_BYTES:
            raise ValueError(f"data must be a JSON object of at most {MAX_EVENT_BYTES} characters")
        _require_json("data", self.data, just_encoded=just_encoded)
        if not 0 < self.schema_version < 1 << 31 or not 0 <= self.occurred_at_us < 1 << 63:
            raise ValueError("schema_version and occurred_at_us must be in range")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """One event as the log holds it; `leaf_hash` is the event's in the tree over all events."""

    pos: int
    stream_id: str
    version: int
    type: str
    schema_version: int
    occurred_at_us: int
    recorded_at_us: int
    command_id: str | None
    actor: str
    data: str
    leaf_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A sealed document, named by its content; `signatures` is JSON text that travels with it."""

    digest: str
    media_type: str
    body: bytes
    signatures: str
    just_encoded: InitVar[bool] = False
    """Whether `signatures` comes straight from a JSON encoder."""

    def __post_init__(self, just_encoded: bool) -> None:
        _require_name("media_type", self.media_type)
        _require_json("signatures", self.signatures, just_encoded=just_encoded)
        if len(self.body) > MAX_DOCUMENT_BYTES:
            raise ValueError(f"a document holds at most {MAX_DOCUMENT_BYTES} bytes")
        if self.digest != "sha256:" + hashlib.sha256(self.body).hexdigest():
            raise ValueError("the digest is not the body's")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDocument:
    """A document with its place in the log: `pos` is the first event of the append that brought it."""

    sequence: int
    pos: int
    document: Document


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRecord:
    """The answer that a retry of the same request gets. `request_hash` tells a retry from a reused id."""

    command_id: str
    request_hash: str
    result: str
    just_encoded: InitVar[bool] = False
    """Whether `result` comes straight from a JSON encoder."""

    def __post_init__(self, just_encoded: bool) -> None:
        _require_name("command_id", self.command_id)
        _require_name("request_hash", self.request_hash)
        _require_json("result", self.result, just_encoded=just_encoded)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionRow:
    """The newest state of one thing, written with the events that led to it; an equal (name, key) is replaced."""

    name: str
    key: str
    status: str
    sort_key: str
    data: str
    just_encoded: InitVar[bool] = False
    """Whether `data` comes straight from a JSON encoder."""

    def __post_init__(self, just_encoded: bool) -> None:
        _require_name("name", self.name)
        _require_name("key", self.key)
        _require_name("status", self.status)
        _require_name("sort_key", self.sort_key)
        _require_json("data", self.data, just_encoded=just_encoded)


class Count(NamedTuple):
    """Whole numbers that an append adds to one row of counters: those of the row's key come first, in its order.

    Adding does not depend on the order of the appends, so that nobody needs to read before writing.
    """

    counters: str
    """`steps`, `stated`, `failures` or `stages`: see the migration that made them."""
    row: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionCursor:
    """The last row of a page: the next page holds what sorts before it."""

    sort_key: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """Everything that one decision writes: all of it, or nothing."""

    stream_id: str
    expected_version: int
    events: tuple[NewEvent, ...]
    command: CommandRecord | None = None
    documents: tuple[Document, ...] = ()
    projections: tuple[ProjectionRow, ...] = ()
    counts: tuple[Count, ...] = ()
    sign: bool = False
    """Whether a checkpoint over these events is to be signed and stored with them."""

    def __post_init__(self) -> None:
        _require_name("stream_id", self.stream_id)
        if not self.events:
            raise ValueError("an append has at least one event")
        if self.expected_version < ANY:
            raise ValueError("expected_version is a version, NO_STREAM or ANY")

    def size(self) -> int:
        """About how many bytes this append keeps in memory while it waits."""
        texts = sum(len(event.data) for event in self.events) + sum(len(row.data) for row in self.projections)
        return texts + sum(len(document.body) for document in self.documents)


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """Where an append's events are now: durable when the caller has this."""

    first_pos: int
    last_pos: int
    version: int


class EventReader(Protocol):
    """Reads of an event log: synchronous, on the calling thread, of what is committed at that moment.

    A read takes tens of microseconds and holds nothing open when it has returned. Reading many events is
    reading pages of at most `limit`: give the last `pos` or `version` of a page to get the next one; an empty
    page is the end for now. Every read may raise `StoreUnusable` when the file is damaged.
    """

    def head(self) -> int:
        """Returns the last `pos`, 0 when there is none."""
        ...

    def stream_version(self, stream_id: str) -> int:
        """Returns the stream's last version, `NO_STREAM` when there is no such stream."""
        ...

    def read_all(self, after_pos: int = 0, limit: int = PAGE) -> tuple[StoredEvent, ...]:
        """Returns the events after `after_pos` in the order of `pos`."""
        ...

    def read_stream(self, stream_id: str, after_version: int = 0, limit: int = PAGE) -> tuple[StoredEvent, ...]:
        """Returns one stream's events after `after_version`; none when there is no such stream."""
        ...

    def document(self, digest: str) -> Document | None:
        """Returns the document of this digest; its body was checked against it."""
        ...

    def documents(self, after_sequence: int = 0, limit: int = PAGE) -> tuple[StoredDocument, ...]:
        """Returns documents in the order in which they were first stored."""
        ...

    def command(self, command_id: str) -> CommandRecord | None:
        """Returns what was recorded for a command."""
        ...

    def projection(self, name: str, key: str) -> ProjectionRow | None:
        """Returns one row of a projection."""
        ...

    def projections(
        self, name: str, *, status: str | None = None, before: ProjectionCursor | None = None, limit: int = PAGE
    ) -> tuple[ProjectionRow, ...]:
        """Returns rows with the greatest (sort_key, key) first, of one status or of all."""
        ...

    def projection_keys(self, name: str, *, after_key: str = "", limit: int = PAGE) -> tuple[ProjectionRow, ...]:
        """Returns rows in the order of their keys' UTF-8 bytes; this is the order of the projection's digest."""
        ...

    def tree_hashes(self, level: int, first: int, count: int) -> Sequence[bytes]:
        """Returns stored hashes of the tree over all events, as `gonogo.merkle` names them; fewer where some lack."""
        ...


class CounterReader(Protocol):
    """Reads what the appends of a log on SQLite have counted."""

    def counted(self, query: str, *parameters: str | int) -> Sequence[Sequence[Any]]:
        """Returns rows of counters, as the query of that name says."""
        ...


class CountedReader(EventReader, CounterReader, Protocol):
    """Reads events, and what was counted with them."""


class EventLog(EventReader, Protocol):
    """The append-only log that all state is folded from; it has one writer.

    Life cycle: open, then any number of calls from any event loop, then `close`. What `append` has returned is on
    disk. An append that raised wrote nothing, with two exceptions: after `StoreFailed`, and when the caller was
    cancelled while it waited, it may have been written; the same append sent again with the same command tells.
    """

    async def append(self, append: Append) -> Appended:
        """Writes the events, command, documents and projection rows of one decision, all or nothing.

        A document whose digest is already stored is left as it is; its first signatures stay. The command is looked
        at before the version, so that a retry is answered as a retry although the stream has moved on.

        Raises:
            DuplicateCommand: The command was done before with the same request hash; carries the first answer.
            CommandConflict: The command id was used with another request hash.
            VersionConflict: The stream is at another version; carries the actual one.
            StoreOverloaded: Too many appends, or too many bytes, are waiting.
            StoreBusy: Another program kept the write lock for seconds.
            StoreFull: No room on the file system; appends work again when there is.
            StoreFailed: The disk failed; the outcome is unknown and the store refuses all further appends.
            StoreClosed: The log is closed.
        """
        ...

    def subscribe(self, after_pos: int = 0) -> AsyncGenerator[tuple[StoredEvent, ...], None]:
        """Yields batches of all events after `after_pos`, in order and without a gap, then waits for new ones.

        Ends with `StoreClosed` when the log is closed. A watcher that falls behind costs no memory: it reads pages
        until it has caught up.
        """
        ...

    def subscribe_stream(self, stream_id: str, after_version: int = 0) -> AsyncGenerator[tuple[StoredEvent, ...], None]:
        """Like `subscribe`, for one stream, which need not exist yet. Other streams' events do not wake the watcher."""
        ...

    def close(self) -> None:
        """Writes what is waiting, ends the subscriptions, and lets go of the file. Closing twice is allowed."""
        ...


class CountedLog(EventLog, CounterReader, Protocol):
    """The log with its counters."""
