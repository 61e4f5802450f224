"""What ends teaches what is stated: signals, from the log's events to what is answered."""

import asyncio
import threading
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.adapters.event_codec import JsonEventCodec
from orchestrator.bootstrap import open_log
from orchestrator.domain import events as ev
from orchestrator.domain.errors import OrchestratorError, Reason
from orchestrator.domain.evidence import Outcome
from orchestrator.domain.lessons import day_of
from orchestrator.domain.mission import Mission, MissionStatus
from orchestrator.domain.plan import RunCommand, Step, WriteFile
from orchestrator.domain.signals import ENOUGH
from orchestrator.service.event_log import CounterReader
from orchestrator.service.event_log_checks import state_digest
from orchestrator.service.mission_store import Decision
from orchestrator.service.replay import replay
from orchestrator.service.signals import LOOKED_AT, SignalRate
from tests.fakes.executor_simulator import ExecutorSimulator
from tests.fakes.orchestrator_house import House, request

MAKE = Step(action=RunCommand(argv=("/usr/bin/make", "all"), env={}))
WRITE = Step(action=WriteFile(path="notes.txt", content="hello\n"))


async def executed(house: House, *steps: Step) -> Mission:
    mission = await house.approved(*steps)
    await house.execute(mission)
    return house.mission(mission.mission_id)


def rate(house: House, kind: str) -> SignalRate:
    (found,) = house.use.signals.learnt(kind=kind).rates
    return found


def signals(house: House, mission: Mission) -> list[ev.SignalRecorded]:
    return [event.payload for event in house.events(mission.mission_id) if isinstance(event.payload, ev.SignalRecorded)]


async def equal_replay(house: House, folder: Path) -> bool:
    empty = open_log(folder / "again" / "events.db")
    try:
        return (await replay(house.log, empty, JsonEventCodec())).equal
    finally:
        empty.close()


async def test_signals_are_written_with_the_end_they_belong_to(house: House) -> None:
    """One for each kind and tool, by the orchestrator, in the same append as the end and right before it."""
    mission = await executed(house, WRITE, MAKE, WRITE)

    *_, receipt, first, second, end = house.log.read_stream(f"mission/{mission.mission_id}")
    assert [receipt.type, first.type, second.type] == ["receipt_issued", "signal_recorded", "signal_recorded"]
    assert (end.type, first.actor) == ("mission_completed", "orchestrator")
    assert first.recorded_at_us == second.recorded_at_us == end.recorded_at_us
    assert first.command_id == end.command_id
    assert [(one.kind, one.tool, one.succeeded) for one in signals(house, mission)] == [
        ("write_file", "", 2),
        ("run_command", "make", 1),
    ]


async def test_a_denied_mission_is_censored(house: House) -> None:
    """Rejected, cancelled and expired missions have signals, too, in which nothing succeeded and nothing failed."""
    rejected, cancelled, expired = await house.proposed(), await house.approved(), await house.approved()
    await house.use.missions.reject(request(), rejected.mission_id, "no")
    await house.use.executions.cancel(request(), cancelled.mission_id, "no")
    house.clock.ahead = timedelta(hours=2)
    await house.use.dispatcher.sweep()

    for mission in (rejected, cancelled, expired):
        (signal,) = signals(house, mission)
        assert (signal.succeeded, signal.failed, signal.censored) == (0, 0, 1)
        assert house.types(mission.mission_id)[-2] == "signal_recorded"
    assert rate(house, "write_file").censored == 3
    assert rate(house, "write_file").samples == 0


async def test_the_fifth_outcome_is_the_first_that_says_something(house: House) -> None:
    """Up to four, a dry run states nothing; from five on it states a confidence with its samples."""
    for _ in range(ENOUGH - 1):
        await executed(house)
    before = await house.proposed()
    await house.dry_run(before)
    assert house.mission(before.mission_id).confidence_samples == 0
    assert rate(house, "write_file").insufficient
    await executed(house)
    house.clock.ahead = timedelta(seconds=2)
    after = await house.proposed()
    await house.dry_run(after)

    stated = house.mission(after.mission_id)
    assert stated.confidence_samples == ENOUGH
    assert stated.confidence == rate(house, "write_file").success_rate > 9000


async def test_a_stated_confidence_is_compared_with_what_came(house: House, executor: ExecutorSimulator) -> None:
    """Every mission that ended by itself counts in the bin of what was stated; others do not."""
    for _ in range(ENOUGH):
        await executed(house)
    house.clock.ahead = timedelta(seconds=2)
    await executed(house)
    executor.outcome = Outcome.PARTIAL
    failed = await executed(house)
    cancelled = await house.approved()
    await house.use.executions.cancel(request(), cancelled.mission_id, "")

    calibration = house.use.signals.learnt().calibration
    assert failed.status is MissionStatus.FAILED
    assert calibration.samples == 2
    assert [(one.low, one.samples, one.realised) for one in calibration.bins] == [(9000, 2, 5000)]


async def test_folding_the_log_again_gives_the_same_counters(
    house: House, executor: ExecutorSimulator, tmp_path: Path
) -> None:
    """Successes, failures, denials and feedback, over a restart: the counters are a fold of the log."""
    for _ in range(ENOUGH + 1):
        await executed(house, WRITE, MAKE)
    executor.outcome = Outcome.ROLLED_BACK
    mission = await executed(house, MAKE)
    waiting = await house.approved(WRITE)
    house = await house.reopen()
    await house.use.feedbacks.record(request(), mission.mission_id, ev.Rating.BAD, "slow")
    await house.use.executions.cancel(request(), waiting.mission_id, "")

    assert rate(house, "run_command").rated_bad == 1
    assert await equal_replay(house, tmp_path)
    await house.close()


async def test_counters_that_do_not_follow_from_the_log_are_found(house: House, tmp_path: Path) -> None:
    """A replay does not agree with counters that somebody changed."""
    await executed(house)
    before = state_digest(house.log)
    house.log._writer._alone(
        lambda: house.log._writer._run("count_stages", [("edit", 0, 1)])  # what no event says
    )

    assert state_digest(house.log) != before
    assert not await equal_replay(house, tmp_path)


async def test_a_mission_that_ends_after_a_restart_teaches_the_same(house: House, executor: ExecutorSimulator) -> None:
    """What the first process saw is read from the log again."""
    mission = await house.approved(WRITE, MAKE)
    executor.claim(house.use.executions._order(mission.mission_id))
    house = await house.reopen()
    await house.execute(house.mission(mission.mission_id))

    assert [(one.kind, one.succeeded) for one in signals(house, mission)] == [("write_file", 1), ("run_command", 1)]
    assert rate(house, "run_command").tool == "make"
    await house.close()


async def test_feedback_counts_and_is_recorded_once_per_request(house: House) -> None:
    """A repeated request is answered as the first was; whoever says it again, or changes their mind, counts once."""
    mission = await executed(house)
    asked = request()
    first = await house.use.feedbacks.record(asked, mission.mission_id, ev.Rating.GOOD, "quick")
    again = await house.use.feedbacks.record(asked, mission.mission_id, ev.Rating.GOOD, "quick")
    await house.use.feedbacks.record(request(), mission.mission_id[:-2], ev.Rating.GOOD, "again")
    for rating in (ev.Rating.GOOD, ev.Rating.BAD, ev.Rating.BAD):
        await house.use.feedbacks.record(request(person="bob"), mission.mission_id, rating, "")
    with pytest.raises(OrchestratorError) as caught:
        await house.use.feedbacks.record(request(), mission.mission_id, None, "x" * 70_000)

    assert again == first
    assert caught.value.reason is Reason.TOO_LARGE
    found = rate(house, "write_file")
    assert (found.rated_good, found.rated_bad, found.samples) == (1, 1, 1)


async def test_whoever_asks_for_all_that_is_known_keeps_nobody_waiting(house: House) -> None:
    """What is read and folded for the answer is read by another thread; missions go on meanwhile."""
    signals, going = house.use.signals, threading.Event()

    def held() -> AbstractContextManager[CounterReader]:
        assert going.wait(20)
        return signals.beside()

    asked = asyncio.ensure_future(replace(signals, beside=held).told())
    for _ in range(ENOUGH):
        await executed(house, WRITE)
    assert not asked.done()
    going.set()

    told = await asked
    assert told == signals.learnt()
    assert [(one.kind, one.samples) for one in told.rates] == [("write_file", ENOUGH)]


async def test_failures_come_together_and_the_last_one_is_named(house: House) -> None:
    """Failures of one kind, reason and path are one line with a count."""
    mission = await house.approved()
    store = house.use.missions.store
    failure = ev.FailureDetected(step_id="s1", reason="STEP_FAILED", message="no", kind="write_file", path="log/1.txt")
    await store.record(mission.mission_id, "x", lambda _mission: _two(failure))

    (found,) = house.use.signals.learnt().failures
    assert (found.kind, found.reason, found.path, found.count) == ("write_file", "STEP_FAILED", "log/*.txt", 2)
    assert (found.last_mission_id, found.message) == (mission.mission_id, "no")
    assert house.use.signals.learnt(kind="run_command").failures == ()


def _two(failure: ev.FailureDetected) -> Decision:
    started = ev.MissionStarted(goal="", steps_count=1, scope_contract=None)
    return Decision(
        payloads=(started, failure, failure, ev.MissionFailed(outcome=Outcome.PARTIAL, reason="two failures"))
    )


async def test_a_long_history_is_looked_back_on_as_far_as_it_matters(house: House) -> None:
    """A rate of a thousand days, of which enough are read, is that of all to a hundredth of a percent."""
    today = day_of(house.clock.now())
    rows = [("write_file", "", "site", today - day, 5, day % 3, day % 2, 0, 0, 0, 0, 0, 0) for day in range(1000)]
    house.log._writer._alone(lambda: house.log._writer._run("count_steps", rows))

    stated = house.use.signals.confidence("site", [("write_file", "")])

    assert LOOKED_AT <= stated.samples < rate(house, "write_file").samples
    assert abs(stated.stated - rate(house, "write_file").success_rate) <= 1
