"""Logs of any length, in which missions of every course of life lie interleaved, with chats in between."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from orchestrator.adapters.event_codec import JsonEventCodec
from orchestrator.domain import events as ev
from orchestrator.domain.evidence import Outcome, ReportStatus, RiskLevel
from orchestrator.domain.intent import IntentKind
from orchestrator.domain.mission import Mission, evolve
from orchestrator.domain.plan import Stage
from orchestrator.service.event_log import ANY, Append, EventLog
from orchestrator.service.mission_row import mission_row
from orchestrator.service.streams import chat_stream, mission_stream

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
EXECUTOR = "executor-1"
SIDE_BY_SIDE = 64
"""How many missions go on at the same time."""

_codec = JsonEventCodec()
_KINDS = (("write_file", Stage.EDIT), ("run_command", Stage.EDIT), ("run_tests", Stage.TEST))
_PLANNED = tuple(
    ev.PlannedStep(step_id=f"s{number}", kind=kind, stage=stage, description=kind, target="a.txt")
    for number, (kind, stage) in enumerate(_KINDS, 1)
)


def _begun(number: int) -> Iterator[ev.Payload]:
    yield ev.MissionProposed(
        intent_id=f"i-{number}",
        objective=f"Größe {number}: write a file",
        workspace_id=f"site-{number % 7}",
        executor_id=EXECUTOR,
        proposer="owner",
    )
    yield ev.PlanSealed(plan_id=f"p-{number}", plan_digest=f"sha256:{number:064x}", steps=_PLANNED)


def _reported(number: int) -> Iterator[ev.Payload]:
    yield ev.DryRunStarted(plan_id=f"p-{number}")
    yield ev.DryRunCompleted(
        report_id=f"r-{number}",
        report_digest=f"sha256:{number + 1:064x}",
        status=ReportStatus.SUCCESS,
        risk=RiskLevel.LOW,
        change_count=3,
        reason="",
        message="",
    )
    until = START + timedelta(days=number)
    yield ev.ApprovalGranted(
        approval_id=f"a-{number}",
        approval_digest=f"sha256:{number + 2:064x}",
        approver="owner",
        key_id="k",
        expires_at=until,
        report_digest=f"sha256:{number + 1:064x}",
    )
    yield ev.MissionApproved(approval_id=f"a-{number}", expires_at=until)


def _step(number: int, *, success: bool) -> Iterator[ev.Payload]:
    step = _PLANNED[number]
    yield ev.StepStarted(step_id=step.step_id, kind=step.kind, stage=step.stage, target=step.target)
    if step.kind != "run_tests":
        yield ev.DiffProposed(step_id=step.step_id, change_count=number + 2, risk=RiskLevel.LOW)
    yield ev.StepCompleted(
        step_id=step.step_id,
        kind=step.kind,
        stage=step.stage,
        success=success,
        duration_ms=5 + number,
        change_count=number + 2 if success and step.kind != "run_tests" else 0,
    )


def _ended(number: int, outcome: Outcome) -> Iterator[ev.Payload]:
    yield ev.ExecutionCompleted(execution_id=f"x-{number}", outcome=outcome)
    yield ev.ReceiptIssued(
        receipt_id=f"rc-{number}", receipt_digest=f"sha256:{number + 3:064x}", execution_id=f"x-{number}"
    )


def _executed(number: int) -> Iterator[ev.Payload]:
    yield ev.MissionStarted(goal="write a file", steps_count=3, scope_contract=None)
    yield ev.ExecutionStarted(execution_id=f"x-{number}")


def succeeded(number: int) -> Iterator[ev.Payload]:
    """A mission that does what it was approved for."""
    yield from (*_begun(number), *_reported(number), *_executed(number))
    for at in range(len(_PLANNED)):
        yield from _step(at, success=True)
    yield from _ended(number, Outcome.SUCCESS)
    yield ev.MissionCompleted(final_answer="done")
    yield ev.FeedbackRecorded(text="good")


def rolled_back(number: int) -> Iterator[ev.Payload]:
    """A mission whose second step fails; the first is undone."""
    yield from (*_begun(number), *_reported(number), ev.MissionQueued(request_id="q"), *_executed(number))
    yield from (*_step(0, success=True), *_step(1, success=False))
    yield ev.FailureDetected(step_id="s2", reason="DIVERGED", message="not what was promised")
    yield ev.DivergenceDetected(step_id="s2", details=("a.txt",))
    yield from (ev.RollbackStarted(step_id="s1"), ev.RollbackCompleted(step_id="s1", success=True, message=""))
    yield from _ended(number, Outcome.ROLLED_BACK)
    yield ev.MissionFailed(outcome=Outcome.ROLLED_BACK, reason="step s2 failed")


def drifted(number: int) -> Iterator[ev.Payload]:
    """A mission that is sent back once and then pauses, with an outcome that nobody knows."""
    yield from (*_begun(number), *_reported(number))
    yield ev.GateRefused(
        refusal_id="rf-1", gate=6, reason="BASE_DRIFTED", message="a.txt differs", remedy="dry run", paths=("a.txt",)
    )
    yield ev.MissionReturned(reason="BASE_DRIFTED", message="a.txt differs")
    yield from (*_reported(number), *_executed(number))
    yield ev.ExecutionPaused(reason="the outcome is unknown")


def stopped(number: int) -> Iterator[ev.Payload]:
    """A mission that a person stops in its second step."""
    yield from (*_begun(number), *_reported(number), *_executed(number))
    yield from _step(0, success=True)
    step = _PLANNED[1]
    yield ev.StepStarted(step_id=step.step_id, kind=step.kind, stage=step.stage, target=step.target)
    yield ev.ExecutionStopped(actor="ana", reason="")
    yield from _ended(number, Outcome.PARTIAL)
    yield ev.SignalRecorded(kind="write_file", workspace_id=f"site-{number % 7}", succeeded=1)
    yield ev.FeedbackRecorded(text="", rating=ev.Rating.BAD)
    yield ev.MissionCancelled(reason="stopped by ana: partial")


def rejected(number: int) -> Iterator[ev.Payload]:
    """A mission that somebody denies."""
    yield from (*_begun(number), ev.MissionRejected(reason="denied by owner: \u202eno\x1b[31m"))


def expired(number: int) -> Iterator[ev.Payload]:
    """A mission whose approval runs out."""
    yield from (*_begun(number), *_reported(number), ev.MissionExpired(reason="the approval ran out"))


def cancelled(number: int) -> Iterator[ev.Payload]:
    """A mission that is taken back before it is executed."""
    yield from (*_begun(number), ev.MissionCancelled(reason="not needed"))


COURSES = (succeeded, rolled_back, drifted, succeeded, rejected, expired, succeeded, cancelled)
_EXECUTORS = ev.EXECUTION_PAYLOADS


class LongLog:
    """Appends missions to a log, event by event or whole; a decision's events stand together, as in a real one."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._numbers = itertools.count(1)

    async def grow(self, events: int) -> None:
        """Append until the log has so many events, or a few more."""
        while self._log.head() < events:
            await asyncio.gather(*(self.live(next(self._numbers)) for _ in range(SIDE_BY_SIDE)))

    async def live(self, number: int, course: Callable[[int], Iterator[ev.Payload]] | None = None) -> str:
        """Have one mission live its whole life, and a chat say something; return the mission's id."""
        mission_id = f"m-{number:020}"
        payloads = list((course or COURSES[number % len(COURSES)])(number))
        mission: Mission | None = None
        sequence = 0
        for cut in (2, 6, len(payloads)):
            part = payloads[sequence:cut]
            if part:
                mission = await self._append(mission_id, mission, sequence, part)
                sequence += len(part)
        if number % 5 == 0:
            await self._chat(number)
        return mission_id

    async def _append(self, mission_id: str, mission: Mission | None, after: int, part: list[ev.Payload]) -> Mission:
        new = []
        for sequence, payload in enumerate(part, after + 1):
            time, actor = START + timedelta(seconds=sequence), EXECUTOR if type(payload) in _EXECUTORS else "owner"
            event = ev.Event(
                event_id=ev.event_id(mission_id, sequence),
                mission_id=mission_id,
                sequence=sequence,
                time=time,
                actor=actor,
                payload=payload,
            )
            mission = evolve(mission, event)
            new.append(_codec.encode(payload, time=time, actor=actor))
        assert mission is not None
        append = Append(
            stream_id=mission_stream(mission_id),
            expected_version=after,
            events=tuple(new),
            projections=(mission_row(mission),),
        )
        await self._log.append(append)
        return mission

    async def _chat(self, number: int) -> None:
        said = ev.MessageReceived(session_id=f"c-{number % 11}", message_id=f"msg-{number}", text="help")
        meant = ev.IntentClassified(intent_id=f"i-{number}", message_id=f"msg-{number}", kind=IntentKind.ASK, detail="")
        events = tuple(_codec.encode(payload, time=START, actor="owner") for payload in (said, meant))
        await self._log.append(Append(stream_id=chat_stream(f"c-{number % 11}"), expected_version=ANY, events=events))
