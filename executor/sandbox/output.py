"""Reading what a command prints, within bounds and without the values of known secrets."""

import hashlib

from executor.domain.redaction import NO_SECRETS, Redactor
from executor.sandbox.sandbox import CapturedOutput


class StreamCapture:
    """Keeps the start and the end of a stream, counts and digests all of it, in bounded memory.

    All of that is of the stream without secrets: not even a digest is of their values. `read` alone counts what came.
    """

    def __init__(self, *, keep: int, redactor: Redactor = NO_SECRETS) -> None:
        self._keep = keep
        self._redacted = redactor.stream() if redactor else None
        self._head_room = keep // 2
        self._tail_room = keep - self._head_room
        self._head = bytearray()
        self._tail = bytearray()
        self._digest = hashlib.sha256()
        self.read = 0
        self.total = 0

    def feed(self, chunk: bytes) -> bytes:
        """Takes the next bytes; returns what listeners may see now."""
        self.read += len(chunk)
        return self._take(chunk if self._redacted is None else self._redacted.feed(chunk))

    def end(self) -> bytes:
        """Takes what may have been the beginning of a secret until now; returns what listeners may see of it."""
        return b"" if self._redacted is None else self._take(self._redacted.end())

    def _take(self, chunk: bytes) -> bytes:
        audible = chunk[: max(0, self._keep - self.total)]
        self.total += len(chunk)
        self._digest.update(chunk)
        room = self._head_room - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        # Trimmed only now and then: dropping a prefix moves the whole rest.
        if len(self._tail) > 2 * self._tail_room + len(chunk):
            self._trim()
        return audible

    def _trim(self) -> None:
        del self._tail[: max(0, len(self._tail) - self._tail_room)]

    def result(self) -> CapturedOutput:
        """Returns what was kept; nothing may come after it."""
        self.end()
        digest = "sha256:" + self._digest.hexdigest()
        if self.total <= self._keep:
            whole = bytes(self._head + self._tail)
            return CapturedOutput(head=whole, tail=b"", total=self.total, digest=digest, truncated=False)
        self._trim()
        return CapturedOutput(
            head=bytes(self._head), tail=bytes(self._tail), total=self.total, digest=digest, truncated=True
        )
