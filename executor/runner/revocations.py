"""Revocations: checked, recorded, and told to an execution that runs.

They come from approvers and not through an orchestrator, and are taken under the last trust file that was good: that a
file has expired, or that its next version is broken, must keep nobody from stopping something.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from executor.domain.errors import GateRefusedError, RequestMalformedError, StoreError
from executor.domain.plan_rules import is_identifier
from executor.domain.revocation import KEPT_REASON, Revocation, RevocationRecord, binding
from executor.domain.sealed import SealedBytes
from executor.runner.approvals import approver_of, bad_signature
from executor.runner.keyring import Keyring
from executor.runner.ports import Claim, Documents, Ledger, Revoked, Standing
from executor.runner.requests import check_envelope, malformed
from executor.runner.trust import InForce
from gonogo import sealing
from gonogo.safe_text import excerpt, safe_line

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
    _unrecorded: set[str] = field(default_factory=set)
    """The missions of which the ledger does not know that yet."""

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
                reason=excerpt(revocation.reason, KEPT_REASON),
                recorded_at=self.now(),
                document=sealed,
            )
        )

    def record(self, record: RevocationRecord) -> Revoked:
        """Record what a document that was checked takes back.

        Raises:
            StoreError: it could not be recorded. What runs on it is stopped all the same: it can be handed in again,
                and what is done meanwhile may not be undone.
        """
        try:
            revoked = self.ledger.revoke(record)
        except StoreError:
            self._stop_unrecorded(record)
            raise
        log.warning(
            "mission %s: %s; in time: %s, stopping: %s",
            record.mission_id,
            safe_line(revoked.record.words),
            revoked.in_time,
            revoked.stopping,
        )
        if revoked.stopping:
            self._tell(revoked.record)
        return revoked

    def _stop_unrecorded(self, record: RevocationRecord) -> None:
        with suppress(StoreError):  # whoever handed it in is told that it is not recorded, and hands it in again
            for claim in self.ledger.unfinished():
                if claim.mission_id == record.mission_id and self._binds(record, claim):
                    self._unrecorded.add(record.mission_id)
                    self._tell(record)

    def _binds(self, record: RevocationRecord, claim: Claim) -> bool:
        """Tell whether an execution stands on what is taken back: on the approvals of its newest segment."""
        last = self.ledger.claims_of(claim.execution_id)[-1]
        return binding((record,), [one.approver for one in last.approvals]) is not None

    def _tell(self, record: RevocationRecord) -> None:
        self._stops.setdefault(record.mission_id, record)
        if self.ledger.standing(record.mission_id) is Standing.EXECUTED:  # it ended before it was told
            self.ended(record.mission_id)

    def stopped(self, mission_id: str) -> RevocationRecord | None:
        """Return what a running execution has to stop for, if anything."""
        record = self._stops.get(mission_id)
        if record is not None and mission_id in self._unrecorded:
            with suppress(StoreError):  # once more, so that what stopped it is in the log before its end
                self.ledger.revoke(record)
                self._unrecorded.discard(mission_id)
        return record

    def stands_on(self, claim: Claim) -> None:
        """Take note that an execution stands on the approvals of a repair plan now, and no more on those before.

        Raises:
            StoreError: what was taken back of it can not be looked up.
        """
        approvers = [one.approver for one in claim.approvals]
        self.ended(claim.mission_id)
        record = binding(self.ledger.revocations(claim.mission_id), approvers)
        if record is not None:  # taken back since the claim was taken
            self._tell(record)

    def ended(self, mission_id: str) -> None:
        """Take note that an execution has ended, so that nobody has to be told any more."""
        self._stops.pop(mission_id, None)
        self._unrecorded.discard(mission_id)


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
