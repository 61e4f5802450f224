"""Chat: what is said becomes an intent, and an intent at most a proposed mission.

Nothing that is said here approves or executes anything. Every turn and every answer is an event of the session's
stream. A message is taken in three writes (heard, acted on, answered), each under a command id that follows from the
request's, so that a retry after a crash goes on where the first attempt ended.

When a mission that a chat proposed has ended, the chat is told once: the row that says that it waits is written with
the proposal and closed with the message, and a restart goes through the rows that are still open.
"""

import asyncio
import logging
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, assert_never

from gonogo.secret_shapes import find_secret_in
from orchestrator.domain import events as ev
from orchestrator.domain.decisions import decide_feedback
from orchestrator.domain.errors import ExecutorUnavailableError, OrchestratorError, Reason, RequestRefusedError
from orchestrator.domain.events import ControlAction
from orchestrator.domain.intent import (
    Control,
    Feedback,
    Intent,
    IntentKind,
    Planner,
    Proposal,
    Question,
    StepDraft,
    StepValue,
    Unclear,
    kind_of,
)
from orchestrator.domain.mission import Mission
from orchestrator.domain.plan import ACTIONS, PlanDraft, Step, shortened
from orchestrator.service.controlling import Controls, Wish
from orchestrator.service.conversation import (
    Understood,
    answer_question,
    how_to,
    meant,
    proposed_text,
    result_text,
    status_text,
)
from orchestrator.service.event_log import (
    ANY,
    Append,
    CommandRecord,
    EventLog,
    ProjectionCursor,
    ProjectionRow,
    StoredEvent,
)
from orchestrator.service.event_log_errors import (
    CommandConflict,
    DuplicateCommand,
    StoreBusy,
    StoreFull,
    StoreOverloaded,
)
from orchestrator.service.execution import Executions
from orchestrator.service.mission_store import Decision, MissionStore
from orchestrator.service.missions import Missions, Origin
from orchestrator.service.ports import Clock, EventCodec, Ids
from orchestrator.service.requests import Request, check_same, part_of, raw_record, reused, told_before
from orchestrator.service.streams import CHAT_RESULTS, chat_stream

GONOGO: Final = "gonogo"
TELL_AGAIN_AFTER: Final = 1.0
MAX_TEXT_BYTES: Final = 64 * 1024

_RATINGS: Final = {"good": ev.Rating.GOOD, "bad": ev.Rating.BAD}
_SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_IDENTIFIER = re.compile(r"[!-~]{1,128}")
"""What executors take for an id in a plan."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTurn:
    """One message as it came in."""

    session_id: str
    text: str
    transcription: ev.Transcription | None
    workspace_id: str
    controls_all: bool = False
    """The sender may operate missions, also those that others proposed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to a message."""

    session_id: str
    message_id: str
    intent_id: str
    intent: IntentKind
    text: str
    mission: Mission | None = None
    nearest: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatMessage:
    """One message of a session; `sequence` is its place in the session's stream."""

    message_id: str
    actor: str
    text: str
    time: datetime
    mission_id: str
    sequence: int


@dataclass(slots=True, kw_only=True, eq=False)
class Intake:
    """Takes messages, and tells chats how their missions ended."""

    log: EventLog
    codec: EventCodec
    store: MissionStore
    missions: Missions
    executions: Executions
    controls: Controls
    planner: Planner
    clock: Clock
    ids: Ids
    _telling: set[asyncio.Task[None]] = field(default_factory=set)

    async def send(self, request: Request, turn: ChatTurn) -> Reply:
        """Take one message and answer it.

        Raises:
            RequestRefusedError: the message is not well formed, or the request id was used for another one.
            ExecutorUnavailableError: a mission can not be proposed before the executor has been heard of once.
        """
        _check(turn)
        answered = self.log.command(request.command_id)
        if answered is not None:
            return self._again(request, answered)
        intent = self.planner.understand(turn.text)
        heard = await self._hear(request, turn, intent)
        understood = await self._act(request, turn, heard, intent)
        return await self._answer(request, heard, kind_of(intent), understood)

    def messages(self, session_id: str, *, after: int, size: int) -> tuple[ChatMessage, ...]:
        """Return a session's messages after a place in its stream, oldest first."""
        found: list[ChatMessage] = []
        while len(found) < size and (page := self.log.read_stream(chat_stream(session_id), after)):
            found += [message for message in map(self._message, page) if message is not None]
            after = page[-1].version
        if not found and not after:
            raise RequestRefusedError(Reason.NOT_FOUND, "no such chat session", "Send a message to open one.")
        return tuple(found[:size])

    def ended(self, mission: Mission) -> None:
        """Take note that a mission ended; the chat that proposed it is told in the background."""
        if mission.session_id:
            task = asyncio.ensure_future(self._tell(mission))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    def start(self) -> None:
        """Tell what a former process had no time to tell."""
        before: ProjectionCursor | None = None
        while page := self.log.projections(CHAT_RESULTS, status="waiting", before=before):
            for row in page:
                mission = self.store.find(row.key)
                if mission.has_ended:
                    self.ended(mission)
            before = ProjectionCursor(sort_key=page[-1].sort_key, key=page[-1].key)

    async def close(self) -> None:
        """Stop; whom nobody told yet is told after the next start."""
        for task in tuple(self._telling):
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)

    async def settle(self) -> None:
        """Wait until the chats are told what there is to tell."""
        while self._telling:
            await asyncio.wait(self._telling)

    async def _hear(self, request: Request, turn: ChatTurn, intent: Intent) -> Origin:
        """Write down what was said and how it was understood; a retry finds the ids of the first time."""
        heard = Origin(
            session_id=turn.session_id or self.ids.new("c-"),
            message_id=self.ids.new("msg-"),
            intent_id=self.ids.new("i-"),
            transcription_id=turn.transcription.transcription_id if turn.transcription else "",
        )
        received = ev.MessageReceived(
            session_id=heard.session_id,
            message_id=heard.message_id,
            text=turn.text,
            transcription=turn.transcription,
        )
        classified = ev.IntentClassified(
            intent_id=heard.intent_id,
            message_id=heard.message_id,
            kind=kind_of(intent),
            detail=_detail(intent),
        )
        told = {"session_id": heard.session_id, "message_id": heard.message_id, "intent_id": heard.intent_id}
        part = part_of(request, "chat", "heard")
        try:
            await self._append(heard.session_id, (received, classified), request.person, raw_record(part, told))
        except DuplicateCommand as duplicate:
            check_same(part, duplicate.record)
            return Origin(**told_before(duplicate.record), transcription_id=heard.transcription_id)
        except CommandConflict:
            raise reused(request) from None
        return heard

    async def _act(self, request: Request, turn: ChatTurn, heard: Origin, intent: Intent) -> Understood:
        part = part_of(request, "chat", "acted")
        try:
            match intent:
                case Proposal():
                    return await self._propose(part, turn, heard, intent)
                case Question():
                    return answer_question(self.missions, intent, heard.session_id)
                case Control():
                    return await self._control(part, turn, intent, heard.session_id)
                case Feedback():
                    return await self._judge(part, turn, intent, heard.session_id)
                case Unclear():
                    return Understood(text=intent.message, nearest=intent.nearest)
                case _:
                    assert_never(intent)
        except ExecutorUnavailableError:
            raise
        except OrchestratorError as error:
            return Understood(text=f"{error.message[:1].upper()}{error.message[1:]}. {error.remedy}")

    async def _propose(self, part: Request, turn: ChatTurn, heard: Origin, intent: Proposal) -> Understood:
        workspace = intent.workspace or turn.workspace_id or await self._only_workspace()
        draft = PlanDraft(
            objective=intent.objective, workspace=workspace, steps=tuple(step_of_draft(step) for step in intent.steps)
        )
        answer = await self.missions.propose(part, draft, heard)
        return Understood(text=proposed_text(answer.mission), mission=answer.mission)

    async def _only_workspace(self) -> str:
        info = await self.missions.card.get()
        if len(info.workspaces) != 1:
            known = ", ".join(workspace.workspace_id for workspace in info.workspaces) or "none"
            raise RequestRefusedError(
                Reason.WORKSPACE_UNKNOWN,
                f"the message names no workspace; there are: {known}",
                "Begin it with `in WORKSPACE:`.",
            )
        return info.workspaces[0].workspace_id

    async def _control(self, part: Request, turn: ChatTurn, intent: Control, session_id: str) -> Understood:
        match intent.verb:
            case "cancel":
                mission = self._controlled(part, turn, intent, session_id)
                answer = await self.executions.cancel(
                    part, mission.mission_id, intent.reason or "cancelled in the chat"
                )
            case "reject":
                mission = self._controlled(part, turn, intent, session_id)
                answer = await self.missions.reject(part, mission.mission_id, intent.reason or "rejected in the chat")
            case "pause" | "resume" | "retry" | "stop":
                return await self._steer(part, turn, intent, session_id)
            case "approve" | "execute":
                return Understood(text=how_to(intent))
            case _:
                raise RequestRefusedError(Reason.UNSUPPORTED, f"{intent.verb!r} is not known here", "Write `help`.")
        return Understood(text=status_text(answer.mission), mission=answer.mission)

    async def _steer(self, part: Request, turn: ChatTurn, intent: Control, session_id: str) -> Understood:
        """Hand a wish to the executor, as its sender might have done without a chat."""
        _require_operator(part, turn, f"{intent.verb} missions")
        mission = meant(self.missions, intent.mission_ref, session_id)
        wish = Wish(action=ControlAction(intent.verb), reason=intent.reason or "", roll_back=intent.roll_back)
        answer = await self.controls.control(part, mission.mission_id, wish)
        told = f"The executor was told to {intent.verb} it." if answer.mission.execution_id else "Nothing was executed."
        return Understood(text=f"{told} {status_text(answer.mission)}", mission=answer.mission)

    def _controlled(self, part: Request, turn: ChatTurn, intent: Control, session_id: str) -> Mission:
        mission = meant(self.missions, intent.mission_ref, session_id)
        if not turn.controls_all and mission.proposer != part.person:
            raise RequestRefusedError(
                Reason.ROLE_MISSING,
                f"mission {mission.mission_id} was not proposed by {part.person}, who may {intent.verb} no others",
                "Ask somebody who may operate missions.",
            )
        return mission

    async def _judge(self, part: Request, turn: ChatTurn, intent: Feedback, session_id: str) -> Understood:
        _require_operator(part, turn, "rate missions")
        mission = meant(self.missions, intent.mission_ref, session_id)
        text = f"{intent.rating}: {intent.text}" if intent.rating and intent.rating != intent.text else intent.text
        rating = _RATINGS.get(intent.rating or "")
        payloads = decide_feedback(rating, text)
        answer = await self.store.act(mission.mission_id, part, lambda _mission: Decision(payloads=payloads))
        return Understood(text=f"Noted for {mission.mission_id}.", mission=answer.mission)

    async def _answer(self, request: Request, heard: Origin, intent: IntentKind, understood: Understood) -> Reply:
        mission = understood.mission
        said = ev.MessageReceived(
            session_id=heard.session_id,
            message_id=self.ids.new("msg-"),
            text=understood.text,
            mission_id=mission.mission_id if mission else "",
        )
        told: dict[str, Any] = {
            "session_id": heard.session_id,
            "message_id": heard.message_id,
            "intent_id": heard.intent_id,
            "intent": intent.value,
            "text": understood.text,
            "nearest": list(understood.nearest),
            **({"mission_id": mission.mission_id, "sequence": mission.last_sequence} if mission else {}),
        }
        try:
            await self._append(heard.session_id, (said,), GONOGO, raw_record(request, told))
        except DuplicateCommand as duplicate:
            return self._again(request, duplicate.record)
        except CommandConflict:
            raise reused(request) from None
        return _reply(told, mission)

    def _again(self, request: Request, record: CommandRecord) -> Reply:
        check_same(request, record)
        told = told_before(record)
        mission = self.store.as_it_was(told["mission_id"], told["sequence"]) if "mission_id" in told else None
        return _reply(told, mission)

    async def _tell(self, mission: Mission) -> None:
        said = ev.MessageReceived(
            session_id=mission.session_id,
            message_id=self.ids.new("msg-"),
            text=result_text(mission),
            mission_id=mission.mission_id,
        )
        # No caller has an empty name, so that nobody's request can be taken for this one.
        command = CommandRecord(command_id=f"/result/{mission.mission_id}", request_hash="result", result="{}")
        row = ProjectionRow(
            name=CHAT_RESULTS, key=mission.mission_id, status="told", sort_key=mission.mission_id, data="{}"
        )
        while True:
            try:
                await self._append(mission.session_id, (said,), GONOGO, command, (row,))
            except DuplicateCommand:
                return  # told before the last process ended
            except (StoreFull, StoreOverloaded, StoreBusy) as error:
                _log.warning("the result of mission %s waits to be written: %s", mission.mission_id, error)
                await asyncio.sleep(TELL_AGAIN_AFTER)
            else:
                return

    async def _append(
        self,
        session_id: str,
        payloads: tuple[ev.Payload, ...],
        actor: str,
        command: CommandRecord,
        rows: tuple[ProjectionRow, ...] = (),
    ) -> None:
        now = self.clock.now()
        events = tuple(self.codec.encode(payload, time=now, actor=actor) for payload in payloads)
        await self.log.append(
            Append(
                stream_id=chat_stream(session_id),
                expected_version=ANY,
                events=events,
                command=command,
                projections=rows,
            )
        )

    def _message(self, stored: StoredEvent) -> ChatMessage | None:
        event = self.codec.decode(stored)
        payload = event.payload
        if not isinstance(payload, ev.MessageReceived):
            return None
        return ChatMessage(
            message_id=payload.message_id,
            actor=event.actor,
            text=payload.text,
            time=event.time,
            mission_id=payload.mission_id,
            sequence=event.sequence,
        )


def step_of_draft(draft: StepDraft) -> Step:
    """Return the step that the planner's words stand for.

    Raises:
        RequestRefusedError: the planner names a kind or a field that is not known.
    """
    fields: dict[str, StepValue | dict[str, str]] = dict(draft.fields)
    if draft.kind in {"run_command", "run_tests"}:
        fields.setdefault("env", {})
    try:
        action: Any = ACTIONS[draft.kind](**fields)  # type: ignore[arg-type]  # checked by the class and by the rules
    except (KeyError, TypeError) as error:
        raise RequestRefusedError(
            Reason.UNSUPPORTED,
            f"a step of the kind {draft.kind!r} can not be made of these words: {error}",
            "Write `help`.",
        ) from None
    return Step(description=shortened(draft.description), action=action)


def _check(turn: ChatTurn) -> None:
    if turn.session_id and not _SESSION.fullmatch(turn.session_id):
        raise RequestRefusedError(Reason.MALFORMED, "the session id is not one", "Leave it out to open a new session.")
    if len(turn.text.encode()) > MAX_TEXT_BYTES:
        raise RequestRefusedError(
            Reason.TOO_LARGE, "the message is too long", f"Use at most {MAX_TEXT_BYTES:,} bytes, or a plan file."
        )
    _check_no_secret(turn)
    if turn.transcription is not None:
        _check_transcription(turn.transcription)


def _require_operator(part: Request, turn: ChatTurn, what: str) -> None:
    """Refuse in a chat what the call for it would refuse."""
    if not turn.controls_all:
        raise RequestRefusedError(
            Reason.ROLE_MISSING, f"{part.person} may not {what}", "Ask somebody who may operate missions."
        )


def _check_transcription(heard: ev.Transcription) -> None:
    if heard.transcription_id and not _IDENTIFIER.fullmatch(heard.transcription_id):
        raise RequestRefusedError(
            Reason.MALFORMED,
            "the transcription's id is not one",
            "Use 1 to 128 printable ASCII characters without blanks, or leave it out.",
        )
    if len(heard.text.encode()) > MAX_TEXT_BYTES:
        raise RequestRefusedError(Reason.TOO_LARGE, "the transcription is too long", "Send a shorter one.")


def _check_no_secret(turn: ChatTurn) -> None:
    """Refuse a message that holds what looks like a credential before anything of it is written down."""
    kind = find_secret_in((turn.text, turn.transcription))
    if kind is not None:
        raise RequestRefusedError(
            Reason.SECRET_IN_PLAN,
            f"the message holds what looks like a secret: {kind}",
            "Say it without the secret; nothing of the message was kept. Where the secret is real, replace it now.",
        )


def _detail(intent: Intent) -> str:
    match intent:
        case Proposal():
            return shortened(intent.objective)
        case Question():
            return f"{intent.kind} {intent.mission_ref or ''}".strip()
        case Control():
            return f"{intent.verb} {intent.mission_ref or ''}".strip()
        case Feedback():
            return shortened(intent.text)
        case Unclear():
            return intent.reason.value
        case _:
            assert_never(intent)


def _reply(told: dict[str, Any], mission: Mission | None) -> Reply:
    return Reply(
        session_id=told["session_id"],
        message_id=told["message_id"],
        intent_id=told["intent_id"],
        intent=IntentKind(told["intent"]),
        text=told["text"],
        mission=mission,
        nearest=tuple(told["nearest"]),
    )
