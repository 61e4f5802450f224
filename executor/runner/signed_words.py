"""What the desk of an execution asks of ledger and documents: verify, count, record."""

from collections.abc import Sequence
from dataclasses import dataclass

from executor.domain.approval import Decision
from executor.domain.control import ControlAction
from executor.domain.errors import ExecutorError
from executor.domain.receipt import ApprovalRecord, ReconciliationRecord
from executor.domain.sealed import SealedBytes
from executor.runner.control_ports import ControlEntry
from executor.runner.control_requests import ControlInput
from executor.runner.documents import OpenDocuments
from executor.runner.keyring import Keyring, UnknownKeyError
from executor.runner.ports import Claim, Ledger
from executor.runner.requests import malformed
from executor.runner.words import ReconciledEffect, StepStanding, StepVote, WaitingStep, Words
from gonogo.signatures import SignatureError


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedWords:
    """Verifies what came with a control, and records it."""

    words: Words
    ledger: Ledger
    documents: OpenDocuments

    def step_approval(self, request: ControlInput, waiting: WaitingStep) -> StepVote:
        """Verify a step's approval or denial; see `Words.step_approval`."""
        return self.words.step_approval(_document(request), waiting)

    def reconciliation(self, request: ControlInput, waiting: WaitingStep) -> ReconciledEffect:
        """Verify a person's word on an effect; see `Words.reconciliation`."""
        return self.words.reconciliation(_document(request), waiting)

    def standing(self, waiting: WaitingStep, entries: Sequence[ControlEntry]) -> StepStanding:
        """Return what the recorded votes come to; see `Words.standing`."""
        return self.words.standing(waiting, entries)

    def record(self, entry: ControlEntry) -> None:
        """Record a control, durably. Whether it is a repetition was looked at before, under the request's turn.

        Raises:
            ExecutorError: it is one all the same.
        """
        if self.ledger.record_control(entry) is not None:
            raise ExecutorError("STATE_FORBIDS", "that control was recorded already", "ask how the mission stands")

    def hold(self, claim: Claim, approvals: Sequence[ApprovalRecord]) -> bool:
        """Tell whether what was enough for a step is so still; see `Words.hold`."""
        return self.words.hold(claim, approvals)

    def keyring(self) -> Keyring | None:
        """Return the keys in force; None where no trust file is."""
        try:
            return self.words.trust().keyring
        except ExecutorError:
            return None

    def recorded_reconciliation(
        self, waiting: WaitingStep, entries: Sequence[ControlEntry]
    ) -> ReconciliationRecord | None:
        """Return the word on this very effect that was verified and recorded before a crash, where there is one."""
        for entry in entries:
            if entry.action is not ControlAction.RECONCILE or entry.document is None:
                continue
            if entry.step_id != waiting.step_id:
                continue
            word = self.documents.reconciliation(entry.document)
            if (word.step_id, word.results_digest) == (waiting.step_id, waiting.results_digest):
                return ReconciliationRecord(
                    reconciliation_id=word.reconciliation_id,
                    reconciliation_digest=entry.document.digest,
                    person=word.person,
                    key_id=entry.document.signatures[0].key_id,
                    happened=word.happened,
                )
        return None


def recorded_approvals(
    entries: Sequence[ControlEntry], signed_words: SignedWords
) -> dict[str, tuple[ApprovalRecord, ...]]:
    """Return the signatures for single steps that were verified and recorded, by step.

    Whether a key is a hardware key is not in the document but in the trust file: where that does not name the key any
    more, or is not in force, it is said of none.
    """
    documents, keyring = signed_words.documents, signed_words.keyring()
    found: dict[str, tuple[ApprovalRecord, ...]] = {}
    for entry in entries:
        if entry.action is not ControlAction.APPROVE_STEP or entry.document is None:
            continue
        approval = documents.step_approval(entry.document)
        if approval.decision is Decision.DENY:
            continue
        [signature] = entry.document.signatures
        record = ApprovalRecord(
            approval_id=approval.approval_id,
            approval_digest=entry.document.digest,
            approver=approval.approver,
            key_id=signature.key_id,
            approved_at=approval.approved_at,
            scheme=signature.scheme,
            expires_at=approval.expires_at,
            hardware_key=keyring is not None and _is_hardware(keyring, entry.document),
        )
        found[entry.step_id] = (*found.get(entry.step_id, ()), record)
    return found


def _is_hardware(keyring: Keyring, document: SealedBytes) -> bool:
    try:
        return keyring.signer(document, document.signatures[0]).key.hardware
    except (UnknownKeyError, SignatureError):
        return False


def _document(request: ControlInput) -> SealedBytes:
    if request.document is None:
        raise malformed("the request carries no document", "send the sealed document")
    return request.document
