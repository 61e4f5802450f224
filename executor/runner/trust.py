"""The trust file in force: what every decision stands on, and what is said where there is none.

A trust file is read as a whole or not at all. What was good last stays known for what is over already (receipts, the
description, recovery); decisions ask for what is in force now, and get an error where that is nothing: the file that
lies there is not one that may be used, or its time is over.

A new file takes effect at once for every later decision. Who works under one file to the end asks again at the end,
and sees whether it is still the same.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from executor.domain.errors import ExecutorError, Fault
from executor.domain.policy import Limits, Trust
from executor.domain.sealed import SealedBytes
from executor.runner.clock import wall_time
from executor.runner.keyring import DocumentSigner, Keyring
from executor.runner.ports import Documents, Finding
from gonogo import sealing


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """One trust file, and what was made of it once: keys that are loaded, and the sealed policy."""

    trust: Trust
    keyring: Keyring
    sealed_policy: SealedBytes
    policy_digest: str
    """Names the sealed policy in every report, approval and receipt."""


def in_force(trust: Trust, documents: Documents, signer: DocumentSigner) -> InForce:
    """Load a trust file's keys, and seal and sign its policy."""
    sealed = signer.sign(sealing.POLICY, documents.seal_policy(trust.policy))
    return InForce(
        trust=trust, keyring=Keyring(trust.policy.persons), sealed_policy=sealed, policy_digest=sealed.digest
    )


def moment_words(at: datetime) -> str:
    """Write a time as it stands in a trust file."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


class TrustInForce:
    """Holds the trust file in force. Every method may be called from any thread.

    Args:
        first: the file at the start.
        now: the executor's effective time.
    """

    def __init__(self, first: InForce, *, now: Callable[[], datetime] = wall_time) -> None:
        self._last = first
        self._fault: Fault | None = None
        self._followers: list[Callable[[Trust], None]] = []
        self._now = now
        self._lock = threading.Lock()

    def current(self) -> InForce:
        """Return what holds now; for everything that is decided.

        Raises:
            ExecutorError: reason STATE_FORBIDS: the file that lies there can not be used; TRUST_EXPIRED: it was good,
                until its time was over.
        """
        with self._lock:
            found, fault = self._last, self._fault
        if fault is not None:
            raise ExecutorError(
                "STATE_FORBIDS", f"nothing is decided until this is mended: {fault.message}", fault.remedy
            )
        expires_at = found.trust.expires_at
        if self._now() >= expires_at:
            raise ExecutorError(
                "TRUST_EXPIRED",
                f"the executor's trust file has expired, at {moment_words(expires_at)}",
                "have the executor's operator look through the trust file, raise its version and set a later expires",
            )
        return found

    def finding(self) -> Finding | None:
        """Return why nothing is decided now; None where something is."""
        try:
            self.current()
        except ExecutorError as error:
            return Finding(name="trust file", ok=False, detail=error.fault.message, remedy=error.fault.remedy)
        return None

    def last(self) -> InForce:
        """Return the last good one, whether it holds now or not; for what is over already."""
        with self._lock:
            return self._last

    def limits(self) -> Limits:
        """Return the last good limits."""
        return self.last().trust.limits

    def checkpoint_lifetime(self) -> timedelta:
        """Return how long a checkpoint is kept."""
        return self.limits().checkpoint_lifetime

    def same(self, earlier: InForce) -> bool:
        """Tell whether what was in force earlier still is.

        Raises:
            ExecutorError: nothing is in force any more.
        """
        return self.current().policy_digest == earlier.policy_digest

    def follow(self, follower: Callable[[Trust], None]) -> None:
        """Have every new file shown to somebody who keeps a part of it, before anybody decides by it."""
        with self._lock:
            self._followers.append(follower)

    def replace(self, new: InForce) -> None:
        """Put a new file in force; whoever asks meanwhile waits until all that follow it have it.

        Where one of them can not follow, all go back to the last good one, and its error is the caller's.
        """
        with self._lock:
            try:
                self._tell(new.trust)
            except Exception:
                with suppress(Exception):  # whoever could not follow may not be able to go back either
                    self._tell(self._last.trust)
                raise
            self._last, self._fault = new, None

    def refuse(self, fault: Fault) -> None:
        """Decide nothing from now on: the file that lies there can not be used."""
        with self._lock:
            self._fault = fault

    def mended(self) -> None:
        """Go on by the last good file: it lies there again."""
        with self._lock:
            self._fault = None

    def _tell(self, trust: Trust) -> None:
        for follower in self._followers:
            follower(trust)
