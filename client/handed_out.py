"""Whether what an orchestrator hands out to be looked at is what the executor signed, about the mission that is meant.

Nothing is signed on the strength of it; but a person decides by what is shown, so that a document of another mission,
or of nobody, must not pass for it.
"""

from collections.abc import Iterator

from client.documents import Documents
from client.verification import check_signature, require_about, require_asked_for, verify_mission
from gonogo.signatures import PublicKey
from gonogo.v1 import orchestrator_pb2


def require_handed_out(
    asked: str,
    response: orchestrator_pb2.GetMissionResponse,
    documents: Documents,
    executor_key: PublicKey | None,
) -> None:
    """Refuse documents that are not the mission's; what the executor must have signed is checked where its key is here.

    Args:
        asked: the mission's id, or its beginning.
        response: what was handed out.
        documents: the same, opened.
        executor_key: the pinned key; None where this side has none.

    Raises:
        EvidenceError: they are another mission's, or are not signed by the executor.
    """
    mission_id = response.mission.mission_id
    require_asked_for(asked, mission_id)
    about = {
        "plan": documents.plan.mission_id,
        "report": documents.report.mission_id if documents.report else mission_id,
        "receipt": documents.receipt.mission_id if documents.receipt else mission_id,
        "refusal": documents.refusal.mission_id if documents.refusal else mission_id,
    }
    for what, named in [*about.items(), *_earlier(documents)]:
        require_about(mission_id, named, what=what)
    if executor_key is not None:
        _require_signed(response, mission_id, executor_key)


def _earlier(documents: Documents) -> Iterator[tuple[str, str]]:
    """Yield what else names a mission: the documents of earlier segments, and persons' words."""
    for one in documents.earlier:
        yield from (("plan", one.plan.mission_id),) if one.plan else ()
        yield from (("report", one.report.mission_id),) if one.report else ()
        yield from (("approval", approval.mission_id) for approval in one.approvals)
    yield from (("signed word", word.mission_id) for word in documents.words)


def _require_signed(response: orchestrator_pb2.GetMissionResponse, mission_id: str, executor_key: PublicKey) -> None:
    if response.report.body:
        verify_mission(mission_id=mission_id, plan=response.plan, report=response.report, executor_key=executor_key)
    for one in response.segments:
        if one.report.body:
            verify_mission(mission_id=mission_id, plan=one.plan, report=one.report, executor_key=executor_key)
    for what, sealed in (("receipt", response.receipt), ("refusal", response.refusal)):
        if sealed.body:
            check_signature(sealed, executor_key, what=what)
