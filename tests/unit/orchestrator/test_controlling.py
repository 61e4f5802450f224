"""What persons have a mission do while it is under way."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.control import LiveProcess
from orchestrator.domain.errors import OrchestratorError, Reason
from orchestrator.domain.events import ControlAction
from orchestrator.domain.evidence import Outcome
from orchestrator.domain.mission import MissionStatus
from orchestrator.service.intake import ChatTurn
from orchestrator.service.ports import ControlOrder
from tests.fakes.executor_simulator import ExecutorSimulator
from tests.fakes.orchestrator_house import House, request
from tests.unit.orchestrator.paused import (
    executing,
    failed,
    reconciliation,
    step,
    step_approval,
    told,
    until,
    until_status,
    until_written,
)
from tests.unit.orchestrator.refusing import refused

A = ControlAction
S = MissionStatus


async def test_a_failed_step_is_retried_and_the_caller_sees_it_all(house: House) -> None:
    """One call of `execute` lives through the pause, to the receipt."""
    mission, caller = await failed(house)
    assert mission.pause is not None
    assert (mission.pause.kind, mission.pause.actions) == (ev.PauseKind.FAILURE, (A.RETRY, A.STOP))

    await told(house, mission, A.RETRY)
    updates = await caller

    assert updates[-1].mission is not None
    assert updates[-1].mission.status is S.COMPLETED
    seen = [ev.TYPES[type(event.payload)] for update in updates for event in update.events]
    assert [name for name in seen if name in {"execution_paused", "execution_resumed", "receipt_issued"}] == [
        "execution_paused",
        "execution_resumed",
        "receipt_issued",
    ]
    assert seen == house.types(mission.mission_id)[-len(seen) :]


async def test_a_watcher_of_a_paused_mission_stays(house: House) -> None:
    """A pause ends no stream; the mission's end does."""
    mission, caller = await failed(house)
    watched = house.use.watching.watch(mission.mission_id, 0, follow=True)
    names: list[str] = []

    async def watch() -> None:
        async for batch in watched:
            names.extend(ev.TYPES[type(event.payload)] for event in batch)

    watcher = asyncio.ensure_future(watch())
    await asyncio.sleep(0.1)
    assert names[-1] == "execution_paused"
    assert not watcher.done()
    await told(house, mission, A.RETRY)
    await caller
    await watcher

    assert names == house.types(mission.mission_id)


@pytest.mark.parametrize(
    ("roll_back", "outcome"), [(False, Outcome.PARTIAL), (True, Outcome.ROLLED_BACK)], ids=["stop", "roll back"]
)
async def test_what_a_person_stops_is_cancelled(house: House, roll_back: bool, outcome: Outcome) -> None:
    """The receipt says what is left; that somebody wanted it so is no failure."""
    house.executor.pauses = (ev.ExecutionPaused(reason="look first", kind=ev.PauseKind.REQUESTED),) * 2
    mission = await house.approved(step("a"), step("b"))
    caller = executing(house, mission)
    await until_status(house, mission, S.PAUSED)
    await told(house, mission, A.RESUME)
    await until(house, mission, lambda now: now.pause is not None and now.pause.step_id == "s2")

    await told(house, mission, A.STOP, roll_back=roll_back, reason="enough")
    ended = (await caller)[-1].mission

    assert ended is not None
    assert (ended.status, ended.outcome) == (S.CANCELLED, outcome)
    assert ended.reason.startswith(f"stopped by owner: {outcome.value.replace('_', ' ')}")
    assert ended.stopped_by == "owner"


async def test_what_a_deadline_stops_has_failed(house: House) -> None:
    """Nobody decided, so nobody cancelled it."""
    mission, caller = await failed(house)
    held = house.executor.ledger[mission.mission_id]
    await told(house, mission, A.STOP, asked=request(person="deadline"))
    ended = (await caller)[-1].mission

    assert ended is not None
    assert held.receipt is not None
    assert (ended.status, ended.outcome) == (S.FAILED, Outcome.ABORTED)


async def test_a_running_mission_is_paused_and_resumed(house: House, executor: ExecutorSimulator) -> None:
    """Between the two it is paused, with the reason that was given."""
    executor.gate_open.clear()
    mission = await house.approved()
    caller = executing(house, mission)
    await until_status(house, mission, S.ACTIVE)

    await told(house, mission, A.PAUSE, reason="lunch")
    executor.gate_open.set()
    paused = await until_status(house, mission, S.PAUSED)
    assert paused.pause is not None
    assert (paused.pause.kind, paused.pause.reason) == (ev.PauseKind.REQUESTED, "lunch")
    await told(house, mission, A.RESUME)

    assert (await caller)[-1].receipt is not None


async def test_what_was_not_begun_is_not_paused_but_cancelled(house: House) -> None:
    """The remedy says so; stopping it is cancelling it."""
    mission = await house.approved()

    error = await refused(told(house, mission, A.PAUSE))
    assert (error.reason, "gonogo cancel" in error.remedy) == (Reason.STATE_FORBIDS, True)
    assert (await refused(told(house, mission, A.RETRY))).reason is Reason.STATE_FORBIDS
    asked = request()
    stopped = await told(house, mission, A.STOP, asked, reason="no need")

    assert (stopped.status, stopped.reason) == (S.CANCELLED, "no need")
    assert await told(house, mission, A.STOP, asked, reason="no need") == stopped
    assert "control" not in house.executor.calls
    assert (await refused(told(house, stopped, A.STOP))).reason is Reason.STATE_FORBIDS


async def test_a_claim_that_was_never_heard_of_is_stopped_all_the_same(
    house: House, executor: ExecutorSimulator
) -> None:
    """The log says approved, the executor holds it: a stop reaches the execution and not the row."""
    executor.pauses = (ev.ExecutionPaused(reason="it failed", kind=ev.PauseKind.FAILURE),)
    mission = await house.approved()
    executor.claim(house.use.executions._order(mission.mission_id))

    await told(house, mission, A.STOP)

    ended = await until_status(house, mission, S.CANCELLED)
    assert ended.receipt_id


async def test_the_same_wish_twice_is_one(house: House, executor: ExecutorSimulator) -> None:
    """A retry of a request is the same request to the executor, also when the answer was lost and after a restart."""
    mission, caller = await failed(house)
    asked = request("wish")
    executor.loses_answers = True
    assert (await refused(told(house, mission, A.RETRY, asked))).reason is Reason.EXECUTOR_UNAVAILABLE
    executor.loses_answers = False
    await caller
    following = await house.reopen()

    ended = await told(following, mission, A.RETRY, asked)

    assert ended.status is S.COMPLETED
    controls = [request_id for request_id in executor.requests if request_id.startswith("control-")]
    assert len(controls) == 2
    assert len(set(controls)) == 1
    assert (await refused(told(following, mission, A.STOP, asked))).reason is Reason.REQUEST_REUSED
    assert (await refused(told(following, mission, A.RETRY))).reason is Reason.STATE_FORBIDS
    await following.close()


async def test_the_executor_s_word_counts(house: House) -> None:
    """What does not fit how the execution stands is refused by it, and changes nothing here."""
    mission, caller = await failed(house)

    error = await refused(told(house, mission, A.APPROVE_STEP, document=step_approval(house, mission)))

    assert error.reason is Reason.STATE_FORBIDS
    assert house.mission(mission.mission_id).status is S.PAUSED
    await told(house, mission, A.STOP)
    await caller


async def test_an_approval_of_one_step_is_kept_with_its_mission(house: House) -> None:
    """It is handed in as it was signed, and stands among the mission's documents from then on."""
    house.executor.pauses = (
        ev.ExecutionPaused(reason="look", kind=ev.PauseKind.STEP_APPROVAL, change_set_digest="sha256:1"),
    )
    mission = await house.approved()
    caller = executing(house, mission)
    waiting = await until_status(house, mission, S.PAUSED)
    word = step_approval(house, waiting)

    await told(house, mission, A.APPROVE_STEP, document=word)
    await caller

    assert "step_approved" in house.types(mission.mission_id)
    assert house.use.missions.file(mission.mission_id).words == (word,)
    following = await house.reopen()
    assert following.use.missions.file(mission.mission_id).words == (word,)
    await following.close()


async def test_a_word_that_was_taken_while_nobody_listened_is_found_by_the_receipt(
    house: House, executor: ExecutorSimulator
) -> None:
    """A process that ended between the executor's answer and its event loses nothing."""
    executor.pauses = (ev.ExecutionPaused(reason="look", kind=ev.PauseKind.STEP_APPROVAL),)
    mission = await house.approved()
    caller = executing(house, mission)
    waiting = await until_status(house, mission, S.PAUSED)
    word = step_approval(house, waiting)
    await house.use.missions.words.keep(mission.mission_id, A.APPROVE_STEP, word)
    await until_written(house, mission)
    following = await house.reopen()
    with pytest.raises((asyncio.CancelledError, OrchestratorError)):
        await caller

    executor.ledger[mission.mission_id].control(
        replace(_order(mission.mission_id), action=A.APPROVE_STEP, document=word)
    )
    await until_status(following, mission, S.COMPLETED)

    assert following.use.missions.file(mission.mission_id).words == (word,)
    await following.close()


async def test_a_denial_of_a_step_is_kept_and_a_word_that_was_refused_is_not(house: House) -> None:
    """A denial is told by the stop that it is; what the executor did not take is none of the mission's documents."""
    house.executor.pauses = (ev.ExecutionPaused(reason="look", kind=ev.PauseKind.STEP_APPROVAL),)
    approved = await house.approved()
    caller = executing(house, approved)
    mission, words = await until_status(house, approved, S.PAUSED), house.use.missions.words
    denial, refused_one = step_approval(house, mission), reconciliation(house, mission, happened=True)
    await words.keep(mission.mission_id, A.APPROVE_STEP, denial)
    await words.keep(mission.mission_id, A.RECONCILE, refused_one)
    words.refused(refused_one)

    stopped = ev.ExecutionStopped(actor="owner", reason="denied s1", roll_back=False)
    assert [row.status for row in words.taken(mission.mission_id, [stopped])] == [denial.digest]
    assert list(words.taken(mission.mission_id, [stopped])) == []
    await told(house, mission, A.STOP)
    await caller


async def test_what_a_paused_mission_takes_is_named_by_its_commands(house: House) -> None:
    """A step that waits for signatures is told of those; what is over is cloned, and what runs is stopped."""
    waits = ev.ExecutionPaused(reason="look", kind=ev.PauseKind.STEP_APPROVAL, step_id="s1")
    house.executor.pauses = (waits,)
    mission = await house.approved()
    caller, name = executing(house, mission), mission.mission_id
    await until_status(house, mission, S.PAUSED)

    dry_run = await refused(house.use.dry_runs.dry_run(request(), name))
    assert f"approve-step|deny-step {name} s1; gonogo stop {name}" in dry_run.remedy
    assert f"gonogo stop {name}" in (await refused(house.use.missions.reject(request(), name, ""))).remedy
    await told(house, mission, A.STOP)
    await caller
    assert "Clone it" in (await refused(house.use.repairs.repair(request(), name, None, dry_run=False))).remedy


async def test_a_person_s_word_on_an_effect_goes_to_the_executor(house: House) -> None:
    """Who says that it happened is in the mission's events."""
    house.executor.pauses = (ev.ExecutionPaused(reason="who knows", kind=ev.PauseKind.UNKNOWN_EFFECT),)
    mission = await house.approved()
    caller = executing(house, mission)
    waiting = await until_status(house, mission, S.PAUSED)

    await told(house, mission, A.RECONCILE, document=reconciliation(house, waiting, happened=True))
    await caller

    (said,) = (event.payload for event in house.events(mission.mission_id) if type(event.payload) is ev.StepReconciled)
    assert (said.happened, said.person) == (True, "owner")
    assert len(house.use.missions.file(mission.mission_id).words) == 1


@pytest.mark.parametrize(
    ("action", "wish"),
    [(A.RETRY, {"roll_back": True}), (A.APPROVE_STEP, {}), (A.STOP, {"document": True}), (A.RECONCILE, {})],
    ids=["rolled back retry", "no approval", "a document", "no word"],
)
async def test_a_wish_that_makes_no_sense_is_refused(house: House, action: A, wish: dict[str, object]) -> None:
    """Nothing is asked of the executor."""
    mission, caller = await failed(house)
    given = {"document": step_approval(house, mission)} if wish.get("document") else wish

    assert (await refused(told(house, mission, action, **given))).reason is Reason.MALFORMED
    assert "control" not in house.executor.calls
    await told(house, mission, A.STOP)
    await caller


async def test_a_word_for_another_mission_is_refused(house: House) -> None:
    """It is signed over the mission it is for."""
    mission, caller = await failed(house)
    word = step_approval(house, replace(mission, mission_id="m-other"))

    error = await refused(told(house, mission, A.APPROVE_STEP, document=word))
    assert error.reason is Reason.MISSION_MISMATCH
    await told(house, mission, A.STOP)
    await caller


async def test_words_with_a_secret_are_refused(house: House) -> None:
    """A reason is kept and shown for ever."""
    mission, caller = await failed(house)

    error = await refused(told(house, mission, A.STOP, reason="ghp_" + "a1B2" * 9))

    assert error.reason is Reason.SECRET_IN_PLAN
    await told(house, mission, A.STOP)
    await caller


@pytest.mark.parametrize("action", [A.APPROVE_STEP, A.RECONCILE])
async def test_signed_words_with_a_secret_are_not_kept(house: House, action: A) -> None:
    """What a person says in a signed word would be kept and shown, too."""
    mission, caller = await failed(house)
    secret = "ghp_" + "a1B2" * 9
    word = (
        step_approval(house, mission, comment=secret)
        if action is A.APPROVE_STEP
        else reconciliation(house, mission, happened=True, reason=secret)
    )

    assert (await refused(told(house, mission, action, document=word))).reason is Reason.SECRET_IN_PLAN
    assert house.log.document(word.digest) is None
    assert "control" not in house.executor.calls
    await told(house, mission, A.STOP)
    await caller


async def test_a_paused_mission_is_neither_cancelled_nor_executed_again(house: House) -> None:
    """What waits is told what it takes instead."""
    mission, caller = await failed(house)

    cancelled = await refused(house.use.executions.cancel(request(), mission.mission_id, ""))
    executed = await refused(house.execute(mission))
    dry_run = await refused(house.use.dry_runs.dry_run(request(), mission.mission_id))

    assert (cancelled.reason, executed.reason, dry_run.reason) == (
        Reason.STATE_FORBIDS,
        Reason.EXECUTION_PAUSED,
        Reason.STATE_FORBIDS,
    )
    retry, repair = f"gonogo retry {mission.mission_id}", f"gonogo repair {mission.mission_id}"
    assert f"gonogo stop {mission.mission_id}" in cancelled.remedy
    assert all(way in error.remedy for way in (retry, repair) for error in (executed, dry_run))
    await told(house, mission, A.STOP)
    await caller


async def test_a_paused_mission_is_taken_up_after_a_restart(house: House) -> None:
    """The next process follows it, a wish reaches it, and the first caller can attach again."""
    house.executor.pauses = (ev.ExecutionPaused(reason="it failed", kind=ev.PauseKind.FAILURE),)
    mission, asked = await house.approved(), request()
    caller = executing(house, mission, asked)
    await until_status(house, mission, S.PAUSED)
    await until_written(house, mission)
    following = await house.reopen()
    with pytest.raises((asyncio.CancelledError, OrchestratorError)):
        await caller

    attached = executing(following, mission, asked)
    await asyncio.sleep(0.01)
    await told(following, mission, A.RETRY)

    assert (await attached)[-1].receipt is not None
    types = following.types(mission.mission_id)
    assert (types.count("execution_started"), types.count("execution_paused")) == (1, 1)
    assert house.executor.calls.count("execute") == 1
    await following.close()


async def test_a_mission_whose_outcome_nobody_knows_can_be_given_up(house: House, executor: ExecutorSimulator) -> None:
    """There is nothing to stop any more; a person takes note, and the mission is over."""
    executor.outcome = Outcome.UNKNOWN
    mission = await house.approved()
    await house.execute(mission)
    waiting = house.mission(mission.mission_id)
    assert waiting.pause is not None
    assert (waiting.status, waiting.pause.kind, waiting.pause.actions) == (
        S.PAUSED,
        ev.PauseKind.UNKNOWN_OUTCOME,
        (),
    )

    await house.use.executions.cancel(request(), mission.mission_id, "the file is there")

    ended = house.mission(mission.mission_id)
    assert (ended.status, ended.outcome) == (S.CANCELLED, Outcome.UNKNOWN)


async def test_programs_that_keep_running_are_listed_and_ended(house: House, executor: ExecutorSimulator) -> None:
    """The executor's word is passed on; ending one twice is the same request to it."""
    program = LiveProcess(
        process_id="pr-1",
        mission_id="m-1",
        step_id="s1",
        workspace_id="site",
        command='["serve"]',
        started_at=datetime.now(UTC),
        running=True,
        ended="",
    )
    executor.running["pr-1"] = program

    assert await house.use.controls.processes("") == (program,)
    asked = request()
    ended = await house.use.controls.stop_process(asked, "pr-1")
    await house.use.controls.stop_process(asked, "pr-1")

    assert (ended.running, ended.ended) == (False, "stopped by owner")
    assert len({name for name in executor.requests if name.startswith("stop-")}) == 1
    assert (await refused(house.use.controls.stop_process(request(), "pr-2"))).reason is Reason.NOT_FOUND
    assert (await refused(house.use.controls.processes("m-none"))).reason is Reason.NOT_FOUND


@pytest.mark.parametrize(
    ("text", "status"),
    [("retry {}", S.COMPLETED), ("stop {}: enough", S.CANCELLED), ("stop {} and roll back", S.CANCELLED)],
    ids=["retry", "stop", "roll back"],
)
async def test_a_chat_steers_a_mission_for_whom_may_operate(house: House, text: str, status: MissionStatus) -> None:
    """The sentence does what the call does, under the sender's name, and nothing for anybody else."""
    mission, caller = await failed(house)
    said = text.format(mission.mission_id)

    reply = await house.say(said)
    assert "may not" in reply.text
    assert house.mission(mission.mission_id).status is S.PAUSED
    turn = ChatTurn(session_id="", text=said, transcription=None, workspace_id="", controls_all=True)
    reply = await house.intake.send(request(), turn)

    assert reply.text.startswith("The executor was told to")
    await caller
    assert house.mission(mission.mission_id).status is status


async def test_a_chat_does_not_steer_a_mission_that_it_did_not_name(house: House) -> None:
    """Without a name only the chat's own latest mission is meant."""
    mission, caller = await failed(house)
    turn = ChatTurn(session_id="", text="retry", transcription=None, workspace_id="", controls_all=True)

    reply = await house.intake.send(request(), turn)

    assert "Name the mission" in reply.text
    assert house.mission(mission.mission_id).status is S.PAUSED
    await told(house, mission, A.STOP)
    await caller


def _order(mission_id: str) -> ControlOrder:
    return ControlOrder(request_id="control-1", mission_id=mission_id, action=A.RESUME, actor="owner")
