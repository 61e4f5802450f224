"""Revocations: checked, recorded, and told to an execution that runs.

They come from approvers and not through an orchestrator, and are taken under the last trust file that was good: that a
file has expired, or that its next version is broken, must keep nobody from stopping something.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from executor.domain.errors import GateRefusedError, RequestMalformedError
from executor.domain.plan_rules import is_identifier
from executor.domain.revocation import Revocation, RevocationRecord
from executor.domain.sealed import SealedBytes
from executor.runner.approvals import approver_of, bad_signature
from executor.runner.keyring import Keyring
from executor.runner.ports import Documents, Ledger, Revoked, Standing
from executor.runner.requests import check_envelope, malformed
from executor.runner.trust import InForce
from gonogo import sealing
from gonogo.safe_text import safe_line

MAX_BYTES = 16 * 1024
GATE = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocations:
    """Takes revocations. Every method may be called from any thread.

    Args:
        in_force: the last good trust file, whether it has expired or not.
        ledger: records what was taken back.
        documents: opens revocations.
        now: the executor's effective time.
    """

    in_force: Callable[[], InForce]
    ledger: Ledger
    documents: Documents
    now: Callable[[], datetime]
    _stops: dict[str, RevocationRecord] = field(default_factory=dict)
    """By mission, what its running execution has to stop for."""

    def revoke(self, sealed: SealedBytes) -> Revoked:
        """Record a signed revocation; the same one again changes nothing and is answered alike.

        Raises:
            RequestMalformedError: not a revocation, or too large.
            GateRefusedError: reason APPROVER_UNKNOWN, SIGNATURE_INVALID or EXECUTOR_MISMATCH.
            StoreError: it could not be recorded; it does not hold then.
        """
        in_force = self.in_force()
        revocation = read_revocation(sealed, in_force.keyring, in_force.trust.executor_id, self.documents)
        return self.record(
            RevocationRecord(
                revocation_id=revocation.revocation_id,
                mission_id=revocation.mission_id,
                person=revocation.person,
                kind=revocation.kind,
                reason=revocation.reason,
                recorded_at=self.now(),
                document=sealed,
            )
        )

    def record(self, record: RevocationRecord) -> Revoked:
        """Record what a document that was checked takes back."""
        revoked = self.ledger.revoke(record)
        log.warning(
            "mission %s: %s; in time: %s, stopping: %s",
            record.mission_id,
            safe_line(revoked.record.words),
            revoked.in_time,
            revoked.stopping,
        )
        if revoked.stopping:
            self._stops.setdefault(record.mission_id, revoked.record)
            if self.ledger.standing(record.mission_id) is Standing.EXECUTED:  # it ended before it was told
                self.ended(record.mission_id)
        return revoked

    def stopped(self, mission_id: str) -> RevocationRecord | None:
        """Return what a running execution has to stop for, if anything."""
        return self._stops.get(mission_id)

    def ended(self, mission_id: str) -> None:
        """Take note that an execution has ended, so that nobody has to be told any more."""
        self._stops.pop(mission_id, None)


def read_revocation(sealed: SealedBytes, keyring: Keyring, executor_id: str, documents: Documents) -> Revocation:
    """Check a signed revocation against the keys of a trust file and open it.

    Raises:
        RequestMalformedError: not a revocation, or too large.
        GateRefusedError: reason APPROVER_UNKNOWN, SIGNATURE_INVALID or EXECUTOR_MISMATCH.
    """
    check_envelope(sealed, sealing.REVOCATION, MAX_BYTES)
    signer = approver_of(keyring, sealed, "a revocation")
    revocation = documents.open_revocation(sealed.body)
    if not all(map(is_identifier, (revocation.revocation_id, revocation.mission_id, revocation.nonce))):
        raise _not_whole()
    person = signer.person.person_id
    if revocation.person != person:
        raise bad_signature(f"{person} signed a revocation in the name of {revocation.person[:100]!r}")
    if revocation.executor_id != executor_id:
        raise GateRefusedError(
            GATE,
            "EXECUTOR_MISMATCH",
            f"the revocation is for executor {revocation.executor_id[:100]!r}",
            f"this is {executor_id!r}; send it to the executor that it names",
        )
    return revocation


def _not_whole() -> RequestMalformedError:
    return malformed(
        "a revocation has no revocation_id, mission_id or nonce", "make it with gonogo revoke or gonogo deny"
    )
