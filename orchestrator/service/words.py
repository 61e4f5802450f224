"""Signed words about single steps: approvals of one step, and what a person says of an effect that nobody saw.

The executor judges them; here they are only kept. A word is stored before it is handed in, and becomes one of its
mission's with the executor's event that it was taken. Where this process ended in between, the receipt names it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from orchestrator.domain import events as ev
from orchestrator.domain.decisions import check_words
from orchestrator.domain.errors import Reason, RequestRefusedError
from orchestrator.domain.events import ControlAction
from orchestrator.domain.evidence import Sealed
from orchestrator.domain.mission import Mission
from orchestrator.service.audit_log import AuditLog
from orchestrator.service.documents import document_of, sealed_of
from orchestrator.service.event_log import ProjectionRow
from orchestrator.service.ports import Documents
from orchestrator.service.streams import WORDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Keeps signed words and finds them again."""

    log: AuditLog
    documents: Documents
    _handed_in: dict[str, Sealed] = field(default_factory=dict)
    """Words of which the executor has not said yet that it took them, by their rows' keys."""

    async def keep(self, mission_id: str, action: ControlAction, word: Sealed) -> None:
        """Read a word strictly and store it, before it is handed in.

        Raises:
            ContractError: it is not such a word.
            RequestRefusedError: it is about another mission, or holds a secret.
        """
        if action is ControlAction.APPROVE_STEP:
            approval = self.documents.open_step_approval(word)
            named, word_id, said = approval.mission_id, approval.approval_id, approval.comment
        else:
            reconciliation = self.documents.open_reconciliation(word)
            named, word_id, said = reconciliation.mission_id, reconciliation.reconciliation_id, reconciliation.reason
        check_words(said)
        if named != mission_id:
            raise RequestRefusedError(
                Reason.MISSION_MISMATCH, "the document names another mission", "Sign one for this mission's step."
            )
        await self.log.keep_document(document_of(word))
        self._handed_in[_key(mission_id, word_id)] = word

    def refused(self, word: Sealed) -> None:
        """Take note that the executor did not take a word: it is nobody's."""
        for key in [key for key, handed_in in self._handed_in.items() if handed_in == word]:
            del self._handed_in[key]

    def taken(self, mission_id: str, payloads: Iterable[ev.Payload]) -> Iterator[ProjectionRow]:
        """Yield the rows that name the words which these events say were taken."""
        for payload in payloads:
            for key in self._keys(mission_id, payload):
                word = self._handed_in.pop(key, None)
                if word is not None:
                    yield ProjectionRow(name=WORDS, key=key, status=word.digest, sort_key=key, data="{}")

    def of(self, mission: Mission, receipt: Sealed | None) -> tuple[Sealed, ...]:
        """Return a mission's words, each once; those that no row names are found by its receipt."""
        named = self.documents.words_of(receipt) if receipt is not None else ()
        stored = (self.log.document(digest) for digest in dict.fromkeys((*self._named(mission.mission_id), *named)))
        return tuple(sealed_of(document) for document in stored if document is not None)

    def _keys(self, mission_id: str, payload: ev.Payload) -> tuple[str, ...]:
        """Return the keys of the words that an event is about; a denial is told by the stop that it is."""
        match payload:
            case ev.StepApproved():
                return (_key(mission_id, payload.approval_id),)
            case ev.StepReconciled():
                return (_key(mission_id, payload.reconciliation_id),)
            case ev.ExecutionStopped():
                return tuple(key for key in self._handed_in if key.startswith(_key(mission_id, "")))
            case _:
                return ()

    def _named(self, mission_id: str) -> Iterator[str]:
        prefix = _key(mission_id, "")
        after = prefix
        while page := self.log.projection_keys(WORDS, after_key=after):
            for row in page:
                if not row.key.startswith(prefix):
                    return
                yield row.status
            after = page[-1].key


def _key(mission_id: str, word_id: str) -> str:
    return f"{mission_id}/{word_id}"
