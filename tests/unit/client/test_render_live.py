"""What a person is shown of steps that reach outside, of pauses and of what persons had an execution do."""

from typing import Any

import pytest
from google.protobuf.message import Message

from client.documents import open_documents
from client.render.boards import whiteboard_text
from client.render.events import event_line
from client.render.evidence import SHOWN, evidence_text
from client.render.missions import confidence_text, documents_text, mission_text, missions_text
from client.render.pauses import COMMANDS, WHY, pause_commands, pause_text
from client.render.plans import plan_text, shown_seconds, step_text
from client.render.receipts import receipt_text
from client.render.reports import report_text
from client.reporting import report_error
from gonogo import sealing
from gonogo.v1 import events_pb2, evidence_pb2, executor_pb2, orchestrator_pb2, plan_pb2, sealed_pb2
from tests.unit.client.test_render import HOSTILE, nothing_hidden

pytestmark = pytest.mark.quick

POST = plan_pb2.HttpRequest(
    method="POST",
    url="https://example.org/orders",
    headers=[plan_pb2.HttpHeader(name="Authorization", value="secret://shop")],
    content='{"a": 1}\n',
    idempotency_header="Idempotency-Key",
)

EVERY = [events_pb2.ControlAction.Value(events_pb2.ControlAction.Name(action)) for action in COMMANDS]  # type: ignore[arg-type]  # plain numbers


def hostile(message: Message, depth: int = 0) -> None:
    """Fill every text of a message, at any depth, with what would hide something."""
    for field in message.DESCRIPTOR.fields:
        value: Any = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            value[HOSTILE] = HOSTILE
        elif field.message_type is not None and depth < 5 and field.message_type.file.package == "gonogo.v1":
            for _ in range(2 if field.is_repeated else 1):
                hostile(value.add() if field.is_repeated else value, depth + 1)
        elif field.type == field.TYPE_STRING and field.is_repeated:
            value.append(HOSTILE)
        elif field.type == field.TYPE_STRING:
            setattr(message, field.name, HOSTILE)
        elif field.type == field.TYPE_BOOL and not field.is_repeated:
            setattr(message, field.name, True)


def step_of(kind: str) -> plan_pb2.Step:
    """Return a step of a kind with a hostile text in every place."""
    step = plan_pb2.Step(step_id=HOSTILE, description=HOSTILE, needs_approval=True)
    hostile(getattr(step, kind))
    hostile(step.compensation)
    return step


@pytest.mark.parametrize("kind", [field.name for field in plan_pb2.Step.DESCRIPTOR.oneofs_by_name["action"].fields])
def test_no_kind_of_step_hides_a_character(kind: str) -> None:
    """Whatever stands in an address, a header, a statement or an argument is seen or spelt out."""
    text = step_text(step_of(kind))
    assert nothing_hidden(text)
    assert "\\x1b" in text


@pytest.mark.parametrize("kind", sorted(SHOWN))
def test_no_kind_of_evidence_hides_a_character(kind: str) -> None:
    """What a far side says is not trusted."""
    step = evidence_pb2.StepReport()
    hostile(getattr(step, kind))
    if kind == "sql":
        step.sql.simulated = False
        assert nothing_hidden(evidence_text(step))
        step.sql.simulated = True
    assert nothing_hidden(evidence_text(step))
    assert nothing_hidden(report_text(evidence_pb2.Report(steps=[step]), ""))


def test_every_kind_of_evidence_is_shown() -> None:
    """A kind that the contract gains is missing here until somebody shows it."""
    fields = evidence_pb2.StepReport.DESCRIPTOR.oneofs_by_name["evidence"].fields
    assert {field.name for field in fields} == set(SHOWN)


def test_no_document_hides_a_character() -> None:
    """Plans, receipts, missions and whiteboards with hostile texts everywhere."""
    plan, receipt = plan_pb2.Plan(), evidence_pb2.Receipt()
    mission, board = orchestrator_pb2.Mission(), orchestrator_pb2.Whiteboard()
    for message in (plan, receipt, mission, board):
        hostile(message)
    mission.pause.actions.extend(EVERY)
    for text in (plan_text(plan, ""), receipt_text(receipt, ""), mission_text(mission), whiteboard_text(board)):
        assert nothing_hidden(text.replace("\t", ""))
        assert "\\x1b" in text


def test_a_live_step_shows_all_that_it_sends() -> None:
    """Method, address, headers, body, what makes up for it, and that it wants a signature of its own."""
    step = plan_pb2.Step(step_id="s1", http_request=POST, needs_approval=True)
    step.compensation.description = "take it back"
    step.compensation.http_request.CopyFrom(plan_pb2.HttpRequest(method="DELETE", url="https://example.org/orders/1"))
    assert step_text(step).split("\n") == [
        "s1  http_request  (no stage)",
        "    method: POST",
        "    url: https://example.org/orders",
        "    headers: Authorization: secret://shop",
        "    content:",
        '      {"a": 1}',
        "",
        "    idempotency_header: Idempotency-Key",
        "    waits for a signature of its own before it is committed",
        "    compensation: http_request  take it back",
        "      method: DELETE",
        "      url: https://example.org/orders/1",
    ]


def test_a_live_step_without_a_compensation_says_what_that_means() -> None:
    """It is irreversible, and the plan already says so; an edit is not, and says nothing."""
    live = plan_pb2.Step(step_id="s1", run_live=plan_pb2.RunLive(argv=["deploy"], access=plan_pb2.LIVE_ACCESS_HOST))
    live.run_live.keep_running.SetInParent()
    text = step_text(live)
    assert "compensation: none; what it does is irreversible" in text
    assert "access: host" in text
    assert "keep_running: yes" in text
    assert "compensation" not in step_text(plan_pb2.Step(delete_path=plan_pb2.DeletePath(path="a")))


def test_bytes_that_are_sent_are_named_by_their_digest() -> None:
    """They can not be shown; two bodies of one length still differ."""
    one, other = (
        step_text(plan_pb2.Step(http_request=plan_pb2.HttpRequest(method="PUT", data=data))) for data in (b"a", b"b")
    )
    assert "1 bytes, sha256:" in one
    assert one != other


def test_a_report_says_what_nobody_has_seen() -> None:
    """Not simulated, irreversible, needs a signature: beside the step, and in the words of its evidence."""
    report = evidence_pb2.Report()
    step = report.steps.add(
        step_id="s1", kind="http_request", success=True, not_simulated=True, irreversible=True, needs_approval=True
    )
    step.live.target, step.live.not_simulated = "POST https://example.org/", "a request can not be tried"
    text = report_text(report, "")
    assert "s1  http_request  ok  0 ms  not simulated, IRREVERSIBLE, needs a signature of its own" in text
    assert "not simulated: a request can not be tried" in text
    assert "nothing takes its effect back" in text
    step.irreversible = False
    step.compensation.kind, step.compensation.target = "call_tool", "recall of mail"
    assert "compensation: call_tool recall of mail" in report_text(report, "")


def test_rows_that_a_statement_changes_are_shown() -> None:
    """Before and after, the first of them, and how many more."""
    found = evidence_pb2.SqlEvidence(
        database="shop", engine="postgresql", statement_kind="update", simulated=True, table="orders", row_count=3
    )
    found.rows.add(before='{"id":1}', after='{"id":2}')
    text = evidence_text(evidence_pb2.StepReport(sql=found))
    assert text.split("\n") == [
        "update on shop (postgresql), table orders",
        "changes 3 rows",
        '- {"id":1}',
        '+ {"id":2}',
        "… 2 more rows",
    ]


def test_a_page_that_was_not_read_yet_says_so() -> None:
    """The approver knows that nobody has seen it."""
    page = evidence_pb2.FetchEvidence(url="https://example.org/")
    assert "not read by the dry run" in evidence_text(evidence_pb2.StepReport(fetch=page))
    page.fetched, page.status_code, page.size, page.redirects[:] = True, 200, "5", ["https://example.org/b"]
    text = evidence_text(evidence_pb2.StepReport(fetch=page))
    assert "status 200" in text
    assert "sent on to https://example.org/b" in text


def test_only_the_cases_that_did_not_pass_are_listed() -> None:
    """Each with what the runner said of it, and how many more there are."""
    run = evidence_pb2.TestEvidence(tests=30)
    run.cases.add(name="fine", status=evidence_pb2.TEST_CASE_STATUS_PASSED)
    for number in range(25):
        run.cases.add(name=f"t{number}", status=evidence_pb2.TEST_CASE_STATUS_FAILED, message="1 != 2")
    text = evidence_text(evidence_pb2.StepReport(tests=run))
    assert "failed  t0\n    1 != 2" in text
    assert "… 5 more" in text
    assert "fine" not in text


def test_a_receipt_tells_effects_words_segments_and_controls() -> None:
    """Nothing that persons had it do, and nothing that happened outside, is left out."""
    receipt = evidence_pb2.Receipt()
    step = receipt.steps.add(step_id="r1-s1", operation="call_tool", success=True, attempts=2, segment=1)
    step.effect.state, step.effect.summary = evidence_pb2.EFFECT_STATE_COMPENSATED, "sent"
    step.effect.idempotency_key = "x-1-s1"
    step.effect.reconciliation.person, step.effect.reconciliation.happened = "ann", True
    step.step_approvals.add(approver="bob")
    receipt.segments.add(segment=1, plan_id="p-2", plan_digest="sha256:2").approvals.add(approver="carol")
    receipt.controls.add(action="retry", actor="dave", reason="again", step_id="s1")
    text = receipt_text(receipt, "")
    for told in (
        *("begun 2 times", "signed for by bob", "effect compensated: sent", "idempotency key x-1-s1"),
        *("ann signed that it happened", "segment 1", "p-2  sha256:2", "approved by  carol", "retry", "dave", "again"),
    ):
        assert told in text, told


PAUSE = executor_pb2.Pause(
    kind=events_pb2.PAUSE_KIND_FAILURE,
    reason="the file is not there",
    step_id="s2",
    actions=[events_pb2.CONTROL_ACTION_RETRY, events_pb2.CONTROL_ACTION_STOP],
    repairable=True,
)


def test_a_pause_says_what_can_be_done() -> None:
    """The very command lines, those that hold now and no others."""
    text = pause_text(PAUSE, "m-1")
    assert text.split("\n") == [
        "paused    a step failed",
        "reason    the file is not there",
        "step      s2",
        "deadline  none: it waits for a person",
        "what you can do",
        "  gonogo retry m-1",
        "  gonogo stop m-1",
        "  gonogo stop m-1 --roll-back",
        "  gonogo repair m-1",
    ]
    waiting = executor_pb2.Pause(default_action=plan_pb2.PAUSE_DEFAULT_STOP)
    waiting.deadline.seconds = 1_000_000_000
    assert "deadline  2001-09-09 01:46:40Z, then stop" in pause_text(waiting, "m-1")


def test_every_kind_of_pause_and_every_control_has_its_words() -> None:
    """What the contract gains is missing here until somebody writes its words; a paused mission is not paused again."""
    assert set(WHY) == set(events_pb2.PauseKind.values()) - {0}
    assert set(COMMANDS) == set(events_pb2.ControlAction.values()) - {0, events_pb2.CONTROL_ACTION_PAUSE}
    every = executor_pb2.Pause(step_id="s1", actions=EVERY)
    assert pause_commands(every, "m-1") == [
        "gonogo resume m-1",
        "gonogo retry m-1",
        "gonogo approve-step m-1 s1 --key KEY",
        "gonogo deny-step m-1 s1 --key KEY",
        "gonogo reconcile m-1 s1 --happened --key KEY",
        "gonogo reconcile m-1 s1 --did-not --key KEY",
        "gonogo stop m-1",
        "gonogo stop m-1 --roll-back",
    ]


def test_a_long_reason_leaves_the_commands_in_sight() -> None:
    """Of what somebody wrote a terminal shows a beginning and says how much is left out."""
    text = pause_text(executor_pb2.Pause(reason="y" * 70_000, step_id="s1", actions=EVERY), "m-1")
    assert "69600 more characters" in text
    assert len(text) < 2_000
    receipt = evidence_pb2.Receipt(controls=[evidence_pb2.ControlRecord(action="stop", reason="z" * 70_000)])
    assert "69600 more characters" in receipt_text(receipt, "sha256:0")


def test_a_repaired_mission_shows_what_it_is_for_and_what_its_plan_is_for_now() -> None:
    """The first objective stays the mission's; a repair plan's own stands below it."""
    mission = orchestrator_pb2.Mission(mission_id="m-1", objective="Release 3")
    assert mission_text(mission, "Release 3") == mission_text(mission)
    lines = mission_text(mission, "Repair: leave out s2").splitlines()
    assert [" ".join(line.split()) for line in lines[1:3]] == ["objective Release 3", "repair Repair: leave out s2"]
    repaired = open_documents(
        orchestrator_pb2.GetMissionResponse(
            mission=mission,
            plan=sealed_pb2.Sealed(
                media_type=sealing.PLAN, body=sealing.seal(plan_pb2.Plan(objective="Repair: leave out s2"))
            ),
        )
    )
    assert "repair     Repair: leave out s2" in documents_text(mission, repaired)


def test_an_id_can_not_become_a_command() -> None:
    """A line is made to be pasted into a shell, whoever chose the step's id."""
    every = executor_pb2.Pause(step_id="s1;reboot", actions=[events_pb2.CONTROL_ACTION_APPROVE_STEP])
    assert pause_commands(every, "$(reboot)") == [
        "gonogo approve-step '$(reboot)' 's1;reboot' --key KEY",
        "gonogo deny-step '$(reboot)' 's1;reboot' --key KEY",
    ]


def test_a_mission_shows_what_it_waits_for_and_how_likely_it_is() -> None:
    """The pause below, the stated confidence with what it is drawn from."""
    mission = orchestrator_pb2.Mission(mission_id="m-1", segment=1, queue_position=2, priority=-5, pause=PAUSE)
    text = mission_text(mission)
    assert "gonogo retry m-1" in text
    assert "place 2" in text
    assert " (2)  " in missions_text([mission])
    assert "-5" in text
    assert confidence_text(mission) == ""
    mission.confidence_samples = 3
    assert confidence_text(mission) == "too few outcomes to say (3)"
    mission.confidence_samples, mission.confidence = 12, 8750
    assert confidence_text(mission) == "87.5 % as 12 outcomes have gone"


def test_a_plan_says_how_long_it_waits_and_what_it_goes_on_with() -> None:
    """Both for whoever approves; a plan of an older release says nothing of either."""
    plan = plan_pb2.Plan(segment=1, execution_id="x-1", journal_digest="sha256:7")
    plan.pause.deadline_seconds, plan.pause.step_approval_seconds = 86_400, 90
    plan.pause.default_action = plan_pb2.PAUSE_DEFAULT_ROLL_BACK
    text = plan_text(plan, "")
    assert "pauses        1 d, then roll_back; a step's own approval within 90 s" in text
    assert "goes on with  execution x-1 as segment 1, after sha256:7" in text
    assert "pauses" not in plan_text(plan_pb2.Plan(), "")
    assert [shown_seconds(n) for n in (0, 61, 120, 7200)] == ["0 s", "61 s", "2 min", "2 h"]


def test_a_pause_event_names_what_can_be_done() -> None:
    """By the names of the contract, and not by its numbers."""
    paused = events_pb2.ExecutionPaused(
        actions=[events_pb2.CONTROL_ACTION_APPROVE_STEP, events_pb2.CONTROL_ACTION_STOP]
    )
    assert "actions=approve_step,stop" in event_line(events_pb2.Event(sequence=1, execution_paused=paused))


@pytest.mark.parametrize(
    ("kind", "offered"), [("fetch_url", "-f FILE gives it another plan"), ("run_tests", "proposes a plan without")]
)
def test_a_failed_dry_run_offers_the_repair_that_there_is(kind: str, offered: str) -> None:
    """Where no rule has a plan, a person is asked for one."""
    report = evidence_pb2.Report(mission_id="m-1", status=evidence_pb2.REPORT_STATUS_FAILED)
    report.problems.add(step_id="s1", message="it answered with status 500")
    report.steps.add(step_id="s1", kind=kind)
    error = report_error(report)
    assert error is not None
    assert f"gonogo repair m-1 {offered}" in error.remedy
