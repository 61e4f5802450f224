"""What a mission's events teach."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.evidence import Outcome, ReportStatus
from orchestrator.domain.lessons import MAX_FAILURES, FailureLesson, StageLesson, StepLesson, Tale, day_of, tale_of
from orchestrator.domain.plan import Stage
from orchestrator.domain.signals import NO_BUCKET, Stated, bucket_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TODAY = day_of(NOON)


def events(*payloads: ev.Payload) -> list[ev.Event]:
    return [
        ev.Event(event_id=f"e-{number}", mission_id="m-1", sequence=number, time=NOON, actor="x", payload=payload)
        for number, payload in enumerate(payloads, 1)
    ]


def planned(*steps: tuple[str, str, str], segment: int = 0) -> ev.PlanSealed:
    return ev.PlanSealed(
        plan_id="p",
        plan_digest="sha256:0",
        segment=segment,
        steps=tuple(
            ev.PlannedStep(step_id=step_id, kind=kind, stage=Stage.EDIT, description="", target=target)
            for step_id, kind, target in steps
        ),
    )


def begun(step_id: str) -> ev.StepStarted:
    return ev.StepStarted(step_id=step_id, kind="k", stage=Stage.EDIT, target="")


def done(step_id: str, *, success: bool = True, ms: int = 10) -> ev.StepCompleted:
    return ev.StepCompleted(
        step_id=step_id, kind="k", stage=Stage.EDIT, success=success, duration_ms=ms, change_count=1
    )


def undone(step_id: str) -> ev.RollbackCompleted:
    return ev.RollbackCompleted(step_id=step_id, success=True, message="")


PROPOSED = ev.MissionProposed(intent_id="i", objective="o", workspace_id="site", executor_id="x", proposer="owner")
WRITE = ("s1", "write_file", "a")
MAKE = ("s2", "run_command", '["make"]')
STATED = ev.DryRunCompleted(
    report_id="r", report_digest="d", status=ReportStatus.SUCCESS, risk=None, change_count=1, reason="", message="",
    confidence=8000, confidence_samples=9,
)  # fmt: skip
COMPLETED = ev.MissionCompleted(final_answer="done")
FAILED = ev.MissionFailed(outcome=Outcome.PARTIAL, reason="r")
SIGNAL = ev.SignalRecorded(kind="write_file", workspace_id="site")
CUT_SHORT = ev.FailureDetected(step_id="s1", reason="STOPPED", message="it was ended")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([], {"censored": 1}),
        ([begun("s1")], {"censored": 1}),
        ([begun("s1"), done("s1", ms=30)], {"succeeded": 1, "duration_ms": 30}),
        ([begun("s1"), done("s1", success=False)], {"failed": 1, "duration_ms": 10}),
        ([begun("s1"), done("s1", success=False), undone("s1")], {"failed": 1, "duration_ms": 10}),
        ([begun("s1"), done("s1"), undone("s1")], {"failed": 1, "rollbacks": 1, "duration_ms": 10}),
        (
            [begun("s1"), done("s1", success=False), begun("s1"), done("s1", ms=5)],
            {"succeeded": 1, "duration_ms": 15},
        ),
        (
            [begun("s1"), ev.ExecutionStopped(actor="ana", reason=""), done("s1", success=False)],
            {"censored": 1},
        ),
        (
            [begun("s1"), CUT_SHORT, done("s1", success=False), ev.ExecutionStopped(actor="ana", reason="")],
            {"censored": 1},
        ),
        (
            [begun("s1"), CUT_SHORT, done("s1", success=False), begun("s1"), done("s1", success=False, ms=1)],
            {"failed": 1, "duration_ms": 11},
        ),
        (
            [begun("s1"), ev.DivergenceDetected(step_id="s1", details=()), done("s1", success=False)],
            {"failed": 1, "divergences": 1, "duration_ms": 10},
        ),
    ],
)
def test_a_step_counts_as_what_came_of_it(told: list[ev.Payload], expected: dict[str, Any]) -> None:
    """Worked; failed or undone; or censored: never begun, never ended, stopped by a person. A retry's result stands."""
    tale = tale_of(events(PROPOSED, planned(WRITE), *told))

    assert tale.recorded() == (ev.SignalRecorded(kind="write_file", workspace_id="site", **expected),)


def test_there_is_one_signal_for_each_kind_and_tool() -> None:
    """Steps of one kind and tool are counted together, in the order of the plan."""
    other = ("s3", "write_file", "b")
    tale = tale_of(events(PROPOSED, planned(WRITE, MAKE, other), begun("s1"), done("s1"), begun("s3"), done("s3")))

    assert [(one.kind, one.tool, one.succeeded, one.censored) for one in tale.recorded()] == [
        ("write_file", "", 2, 0),
        ("run_command", "make", 0, 1),
    ]
    assert tale.planned == (("write_file", ""), ("run_command", "make"), ("write_file", ""))


def test_a_repair_plan_adds_to_the_first_and_a_new_first_plan_replaces_it() -> None:
    """What was not begun of an interrupted plan is censored; what was never approved is not a step at all."""
    repair = ("r1-s1", "patch_file", "a")
    repaired = tale_of(events(PROPOSED, planned(WRITE, MAKE), begun("s1"), done("s1"), planned(repair, segment=1)))
    replaced = tale_of(events(PROPOSED, planned(WRITE), planned(MAKE)))

    assert [one.kind for one in repaired.recorded()] == ["write_file", "run_command", "patch_file"]
    assert repaired.planned == (("patch_file", ""),)
    assert [one.kind for one in replaced.recorded()] == ["run_command"]


def ended(*payloads: ev.Payload) -> list[object]:
    """Return what the last of a mission's events adds to the counters."""
    *before, last = events(PROPOSED, planned(WRITE), *payloads)
    tale = Tale()
    for event in before:
        assert tale.take(event) == ()
    return list(tale.take(last))


def test_the_end_counts_what_was_recorded() -> None:
    """Signals, stages and the stated confidence become whole numbers under the day and the duration's bucket."""
    signal = replace(SIGNAL, succeeded=1, duration_ms=30)

    lessons = ended(STATED, begun("s1"), done("s1", ms=30), signal, COMPLETED)

    assert lessons == [
        StepLesson(kind="write_file", tool="", workspace_id="site", day=TODAY, bucket=bucket_of(30), succeeded=1),
        StageLesson(stage=Stage.EDIT, bucket=bucket_of(30)),
        Stated(bin=8, samples=1, stated=8000, stated_squared=64_000_000, realised=1, stated_realised=8000),
    ]


def test_a_mission_of_an_older_release_counts_nothing() -> None:
    """Without signals in the log there are none in the counters, so that its replay gives what is there."""
    assert ended(STATED, begun("s1"), done("s1"), COMPLETED) == []


@pytest.mark.parametrize(
    "end",
    [
        ev.MissionRejected(reason="no"),
        ev.MissionCancelled(reason="no"),
        ev.MissionExpired(reason="late"),
    ],
)
def test_a_denial_is_censored(end: ev.Payload) -> None:
    """What nobody let happen is counted as that, and says nothing of the confidence that was stated."""
    lessons = ended(STATED, replace(SIGNAL, censored=1), end)

    assert lessons == [
        StepLesson(kind="write_file", tool="", workspace_id="site", day=TODAY, bucket=NO_BUCKET, censored=1)
    ]


def test_a_failed_mission_did_not_realise_its_confidence() -> None:
    """Partial, rolled back and aborted are failures of what was stated."""
    lessons = ended(STATED, begun("s1"), done("s1", success=False), replace(SIGNAL, failed=1), FAILED)

    assert lessons[-1] == Stated(
        bin=8, samples=1, stated=8000, stated_squared=64_000_000, realised=0, stated_realised=0
    )


def test_failures_come_with_kind_reason_and_path() -> None:
    """The step's kind stands in where the event has none, numbers of a path are a star, and there is an end to them."""
    failure = ev.FailureDetected(step_id="s1", reason="STEP_FAILED", message="m" * 400, path="log/17.txt")

    lessons = ended(*[failure] * (MAX_FAILURES + 5), replace(SIGNAL, failed=1), FAILED)

    failures = [lesson for lesson in lessons if isinstance(lesson, FailureLesson)]
    assert (
        failures
        == [
            FailureLesson(
                kind="write_file",
                reason="STEP_FAILED",
                path="log/*.txt",
                mission_id="m-1",
                time=NOON,
                message="m" * 300,
            )
        ]
        * MAX_FAILURES
    )


def test_what_a_stop_cut_short_is_no_failure() -> None:
    """The step that was ended is told as failed, but it would not have recurred without the person who stopped it."""
    stopped = ev.ExecutionStopped(actor="ana", reason="")
    tale = tale_of(events(PROPOSED, planned(WRITE), begun("s1"), CUT_SHORT, done("s1", success=False), stopped))

    assert tale.failures == ()


def test_drift_is_counted_for_all_that_the_plan_uses() -> None:
    """Being sent back for drift, and a step that finds drift, are counted with the signals."""
    returned = ev.MissionReturned(reason="BASE_DRIFTED", message="")
    failure = ev.FailureDetected(step_id="s1", reason="BASE_DRIFTED", message="")

    lesson = ended(returned, failure, replace(SIGNAL, failed=1), FAILED)[0]

    assert isinstance(lesson, StepLesson)
    assert lesson.drifts == 2


@pytest.mark.parametrize(("rating", "good", "bad"), [(ev.Rating.GOOD, 1, 0), (ev.Rating.BAD, 0, 1)])
def test_a_rating_counts_for_every_kind_and_tool_of_the_plan(rating: ev.Rating, good: int, bad: int) -> None:
    """It is counted when it is given, with no outcome; words without a rating are not counted."""
    tale = tale_of(events(PROPOSED, planned(WRITE, MAKE)))
    rated, said = events(ev.FeedbackRecorded(text="", rating=rating), ev.FeedbackRecorded(text="hm"))

    assert [(one.kind, one.rated_good, one.rated_bad) for one in tale.take(rated) if isinstance(one, StepLesson)] == [
        ("write_file", good, bad),
        ("run_command", good, bad),
    ]
    assert not tale.take(said)


def test_a_copy_goes_its_own_way() -> None:
    """What a copy takes is not in the tale it was made of."""
    tale = tale_of(events(PROPOSED, planned(WRITE)))
    copy = tale.copy()
    for event in events(begun("s1"), done("s1")):
        copy.take(event)

    assert tale.recorded()[0].censored == 1
    assert copy.recorded()[0].succeeded == 1
