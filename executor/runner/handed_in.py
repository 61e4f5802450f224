"""Takes in the revocations that were handed in on the executor's own host."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from executor.domain.errors import ExecutorError, StoreError
from executor.domain.sealed import SealedBytes
from executor.runner.ports import Revoked

LOOK_SECONDS = 0.1

log = logging.getLogger(__name__)


class Spool(Protocol):
    """Where revocations wait, by name, until they are settled. Made for one reader."""

    def waiting(self) -> tuple[str, ...]: ...

    def read(self, name: str) -> SealedBytes:
        """Read one; raises RequestMalformedError."""
        ...

    def settle(self, name: str, answer: Mapping[str, object]) -> None:
        """Leave an answer and let go of what waited."""
        ...

    def forget_answers(self) -> None:
        """Let go of the answers that nobody took."""
        ...


class HandedIn:
    """Looks ten times a second; at the start once, before anything is served."""

    def __init__(self, spool: Spool, revoke: Callable[[SealedBytes], Revoked]) -> None:
        self._spool = spool
        self._revoke = revoke
        self._told = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="handed-in", daemon=True)

    def start(self) -> None:
        """Take in what waits, then go on in the background.

        Raises:
            StoreError: something that waits could not be recorded; nothing may be executed before it is.
        """
        self._spool.forget_answers()
        self._take_in()
        self._thread.start()

    def close(self) -> None:
        """End the background work."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                self._take_in()
                self._told = ""
            except StoreError as error:
                if str(error) != self._told:  # ten times a second would be a flood
                    self._told = str(error)
                    log.exception("a revocation could not be taken in; it waits")

    def _take_in(self) -> None:
        """Take in all that can be; one that can not keeps none of the others waiting.

        Raises:
            StoreError: something goes on waiting.
        """
        failed: StoreError | None = None
        for name in self._waiting():
            try:
                self._spool.settle(name, self._answer(name))
            except StoreError as error:
                failed = error
            except Exception as error:  # noqa: BLE001 - whatever one of them does, this thread goes on taking others
                failed = _not_taken(f"{name} can not be read or settled: {error!r}")
        if failed is not None:
            raise failed

    def _waiting(self) -> tuple[str, ...]:
        try:
            return self._spool.waiting()
        except OSError as error:
            raise _not_taken(f"it can not be read: {error}") from error

    def _answer(self, name: str) -> Mapping[str, object]:
        try:
            revoked = self._revoke(self._spool.read(name))
        except StoreError:
            raise  # it was not recorded: it goes on waiting
        except ExecutorError as error:
            log.warning("a revocation that was handed in was refused: %s", error)
            fault = error.fault
            return {"reason": fault.reason, "message": fault.message, "remedy": fault.remedy}
        return {
            "revocation_id": revoked.record.revocation_id,
            "in_time": revoked.in_time,
            "stopping": revoked.stopping,
        }


def _not_taken(what: str) -> StoreError:
    return StoreError(
        "INTERNAL",
        f"what was handed in on this host could not be taken in: {what}",
        "look at the folder revocations in the executor's own directory: each file there must be readable for its user",
    )
