"""What the house says in a chat."""

from dataclasses import dataclass
from typing import assert_never

from orchestrator.domain.errors import Reason, RequestRefusedError
from orchestrator.domain.intent import FORMS, Control, Question
from orchestrator.domain.mission import Mission, MissionStatus
from orchestrator.domain.plan import shortened
from orchestrator.service.missions import Missions

RECENT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Understood:
    """What became of an intent, in words, and the mission it is about."""

    text: str
    mission: Mission | None = None
    nearest: tuple[str, ...] = ()


def answer_question(missions: Missions, question: Question, session_id: str) -> Understood:
    """Answer a question from what is known; asking changes nothing."""
    match question.kind:
        case "status":
            mission = mentioned(missions, question.mission_ref, session_id)
            return Understood(text=status_text(mission), mission=mission)
        case "result":
            mission = mentioned(missions, question.mission_ref, session_id)
            return Understood(text=result_text(mission), mission=mission)
        case "list":
            return Understood(text=_list_text(missions.page(size=RECENT, before=None, status=None).missions))
        case "waiting":
            page = missions.page(size=RECENT, before=None, status=MissionStatus.PROPOSED)
            return Understood(text=_list_text(page.missions))
        case "help":
            return Understood(text="You can write:\n" + "\n".join(f"- {form}" for form in FORMS))
        case _:
            raise RequestRefusedError(
                Reason.UNSUPPORTED, f"a question of the kind {question.kind!r} is not known", "Write `help`."
            )


def how_to(control: Control) -> str:
    """Say how that is done which a chat does not do."""
    mission = control.mission_ref or "MISSION"
    if control.verb == "approve":
        return f"A chat approves nothing. Look at `gonogo show {mission}`, then sign with `gonogo approve {mission}`."
    return f"A chat executes nothing. Once the mission is approved, run `gonogo execute {mission}`."


def mentioned(missions: Missions, reference: str | None, session_id: str) -> Mission:
    """Return the mission that is meant: the one named, else the chat's latest, else the latest of all.

    Raises:
        RequestRefusedError: there is none.
    """
    if reference is not None:
        return missions.store.find(reference)
    recent = missions.page(size=500, before=None, status=None).missions
    if not recent:
        raise RequestRefusedError(Reason.NOT_FOUND, "there is no mission yet", "Ask for something first")
    return next((mission for mission in recent if mission.session_id == session_id), recent[0])


def meant(missions: Missions, reference: str | None, session_id: str) -> Mission:
    """Return the mission that something is to be done with: the one named, else the chat's latest.

    Raises:
        RequestRefusedError: none is named, and the chat has none.
    """
    mission = mentioned(missions, reference, session_id)
    if reference is None and mission.session_id != session_id:
        raise RequestRefusedError(
            Reason.NOT_FOUND, "this chat has no mission yet", "Name the mission; `list missions` shows them."
        )
    return mission


def proposed_text(mission: Mission) -> str:
    """Say that a mission was proposed and what comes next."""
    steps = f"{mission.steps_count} step{'' if mission.steps_count == 1 else 's'}"
    return (
        f"Proposed {mission.mission_id}: {shortened(mission.objective)} ({steps} in {mission.workspace_id}). "
        f"Nothing happens until it is dry-run and approved: `gonogo dry-run {mission.mission_id}`."
    )


def status_text(mission: Mission) -> str:
    """Say where a mission stands."""
    why = f": {mission.reason}" if mission.reason else ""
    return f"{mission.mission_id} is {mission.status.value}{why} ({shortened(mission.objective)})."


def result_text(mission: Mission) -> str:
    """Say what a mission came to."""
    match mission.status:
        case MissionStatus.COMPLETED:
            return f"{mission.mission_id} is completed. {mission.final_answer}. Receipt: {mission.receipt_id}."
        case MissionStatus.FAILED:
            return f"{mission.mission_id} failed: {mission.reason}. Receipt: {mission.receipt_id}."
        case MissionStatus.CANCELLED | MissionStatus.REJECTED | MissionStatus.EXPIRED:
            return f"{mission.mission_id} is {mission.status.value}: {mission.reason or 'no reason given'}."
        case (
            MissionStatus.PROPOSED
            | MissionStatus.APPROVED
            | MissionStatus.QUEUED
            | MissionStatus.ACTIVE
            | MissionStatus.PAUSED
        ):
            return f"There is no result yet. {status_text(mission)}"
        case _:
            assert_never(mission.status)


def _list_text(missions: tuple[Mission, ...]) -> str:
    return "\n".join(f"- {status_text(mission)}" for mission in missions) or "There is none."
