"""Reading what a command prints, within bounds."""

import hashlib

from executor.sandbox.sandbox import CapturedOutput


class StreamCapture:
    """Keeps the start and the end of a stream, counts and digests all of it, in bounded memory."""

    def __init__(self, *, keep: int) -> None:
        self._keep = keep
        self._head_room = keep // 2
        self._tail_room = keep - self._head_room
        self._head = bytearray()
        self._tail = bytearray()
        self._digest = hashlib.sha256()
        self.total = 0

    def feed(self, chunk: bytes) -> bytes:
        """Takes the next bytes; returns the part of them that listeners may still see."""
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
        digest = "sha256:" + self._digest.hexdigest()
        if self.total <= self._keep:
            whole = bytes(self._head + self._tail)
            return CapturedOutput(head=whole, tail=b"", total=self.total, digest=digest, truncated=False)
        self._trim()
        return CapturedOutput(
            head=bytes(self._head), tail=bytes(self._tail), total=self.total, digest=digest, truncated=True
        )
