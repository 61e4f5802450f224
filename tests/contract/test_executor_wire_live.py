"""What the executor reads and writes of steps that reach outside, of pauses and of persons' words about one step."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.adapters.wire import WireDocuments
from executor.adapters.wire_events import events_from_json, events_to_json
from executor.adapters.wire_evidence import READERS
from executor.adapters.wire_live import LIVE, OUTSIDE, compensation_from_proto
from executor.domain import events
from executor.domain import plan as plans
from executor.domain.approval import Decision
from executor.domain.control import PauseKind, Reconciliation, StepApproval
from executor.domain.errors import RequestMalformedError
from executor.domain.receipt import (
    ControlRecord,
    EffectRecord,
    EffectState,
    ReconciliationRecord,
    SegmentRecord,
)
from executor.domain.report import (
    CompensationReport,
    Evidence,
    Excerpt,
    FetchEvidence,
    LiveEvidence,
    SqlEvidence,
    SqlRow,
    StepReport,
    TestCase,
    TestCaseStatus,
    TestEvidence,
    TestVerdict,
    ToolEvidence,
)
from executor.runner.ports import Event
from gonogo import sealing
from gonogo.digests import digest
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.contract.test_executor_wire import COMMAND, RECEIPT, REPORT, TIME

GOLDEN = Path(__file__).parent / "golden"
TEXTS = st.text(max_size=20)
COUNTS = st.integers(0, 2**32 - 1)
EXCERPTS = st.builds(Excerpt, head=TEXTS, tail=TEXTS, total_bytes=st.integers(0, 2**62), digest=TEXTS)
CASES = st.builds(TestCase, name=TEXTS, status=st.sampled_from(TestCaseStatus), message=TEXTS)
EVIDENCE = st.one_of(
    st.builds(
        FetchEvidence,
        url=TEXTS,
        fetched=st.just(True),
        status_code=COUNTS,
        content_type=TEXTS,
        digest=TEXTS,
        size=st.integers(0, 2**62),
        text_digest=TEXTS,
        preview=st.none() | EXCERPTS,
        redirects=st.lists(TEXTS, max_size=3).map(tuple),
    ),
    st.builds(FetchEvidence, url=TEXTS, fetched=st.just(False)),
    st.builds(LiveEvidence, target=TEXTS, digest=TEXTS, not_simulated=TEXTS),
    st.builds(
        ToolEvidence,
        server=TEXTS,
        tool=TEXTS,
        description=EXCERPTS,
        tool_digest=TEXTS,
        arguments_digest=TEXTS,
        says_read_only=st.booleans(),
        server_version=TEXTS,
    ),
    st.builds(
        SqlEvidence,
        database=TEXTS,
        engine=TEXTS,
        statement_kind=TEXTS,
        simulated=st.booleans(),
        not_simulated=TEXTS,
        table=TEXTS,
        row_count=COUNTS,
        rows_digest=TEXTS,
        rows=st.lists(st.builds(SqlRow, before=TEXTS, after=TEXTS), max_size=3).map(tuple),
    ),
    st.builds(
        TestEvidence,
        verdict=st.sampled_from(TestVerdict),
        command=st.just(COMMAND),
        tests=COUNTS,
        failures=COUNTS,
        errors=COUNTS,
        skipped=COUNTS,
        cases=st.lists(CASES, max_size=3).map(tuple),
    ),
)
STEPS = st.builds(
    StepReport,
    step_id=TEXTS,
    kind=TEXTS,
    stage=st.sampled_from(plans.Stage),
    success=st.booleans(),
    changes=st.just(()),
    evidence=EVIDENCE,
    duration_ms=COUNTS,
    not_simulated=st.booleans(),
    irreversible=st.booleans(),
    needs_approval=st.booleans(),
    compensation=st.none()
    | st.builds(CompensationReport, kind=TEXTS, target=TEXTS, description=TEXTS, not_simulated=TEXTS),
)


class TestPlans:
    def test_every_kind_outside_is_mapped(self) -> None:
        """The kinds that a compensation may have are the live ones, and all kinds outside have their function."""
        fields = {field.name for field in plan_pb2.Compensation.DESCRIPTOR.oneofs_by_name["action"].fields}
        assert fields == set(LIVE) == {plans.KINDS[kind] for kind in get_args(plans.Live)}
        outside = {plans.KINDS[kind] for kind in get_args(plans.Outside)}
        assert set(OUTSIDE) == outside | {"search_bodies"}

    @pytest.mark.parametrize(
        ("value_class", "message"),
        [
            (plans.PauseRules, plan_pb2.PauseRules),
            (plans.HttpHeader, plan_pb2.HttpHeader),
            (plans.ReadinessCheck, plan_pb2.ReadinessCheck),
            (CompensationReport, evidence_pb2.CompensationReport),
            (TestCase, evidence_pb2.TestCase),
            (SqlRow, evidence_pb2.SqlRow),
            (FetchEvidence, evidence_pb2.FetchEvidence),
            (LiveEvidence, evidence_pb2.LiveEvidence),
            (ToolEvidence, evidence_pb2.ToolEvidence),
            (SqlEvidence, evidence_pb2.SqlEvidence),
            (TestEvidence, evidence_pb2.TestEvidence),
            (EffectRecord, evidence_pb2.EffectRecord),
            (ReconciliationRecord, evidence_pb2.ReconciliationRecord),
            (ControlRecord, evidence_pb2.ControlRecord),
            (SegmentRecord, evidence_pb2.SegmentRecord),
            (StepApproval, evidence_pb2.StepApproval),
            (Reconciliation, evidence_pb2.Reconciliation),
        ],
    )
    def test_a_class_has_the_fields_of_its_message(self, value_class: Any, message: Any) -> None:
        """A field that the contract gains is missing here until somebody maps it."""
        names = {field.name for field in message.DESCRIPTOR.fields}
        assert names == {field.name for field in dataclasses.fields(value_class)}

    def test_a_plan_of_every_live_kind(self) -> None:
        """The golden plan, with every kind outside of the workspace in it, reads as these values."""
        body = (GOLDEN / "plan_live_kinds.json").read_bytes().rstrip(b"\n")
        plan = WireDocuments().open_plan(body)
        assert digest(body) == (GOLDEN / "plan_live_kinds.digest").read_text().strip()
        assert [step.action for step in plan.steps] == [
            plans.FetchUrl(url="https://example.org/a", head=False, extract_text=True, max_bytes=5_000_000_000),
            plans.FetchUrl(url="http://www.example.net:8080/", head=True, extract_text=False, max_bytes=None),
            plans.SearchBodies(query="two words", limit=20),
            plans.HttpRequest(
                method="POST",
                url="https://example.org/",
                headers=(plans.HttpHeader(name="A", value="secret://b"),),
                content="ü".encode(),
                success_codes=(201,),
                idempotency_header="Idempotency-Key",
            ),
            plans.HttpRequest(
                method="PUT",
                url="https://example.org/",
                headers=(),
                content=b"\x00\xff",
                success_codes=(),
                idempotency_header="",
            ),
            plans.RunLive(
                argv=("deploy", "--now"),
                cwd="sub",
                env={"A": "b"},
                success_codes=(0, 2),
                access=plans.LiveAccess.HOST,
                keep_running=plans.ReadinessCheck(port=8080, output="", seconds=10),
            ),
            plans.RunLive(
                argv=("true",),
                cwd="",
                env={},
                success_codes=(0,),
                access=plans.LiveAccess.NETWORK,
                keep_running=plans.ReadinessCheck(port=0, output="ready", seconds=5),
            ),
            plans.CallTool(server="mail", tool="send", arguments='{"to":"a"}'),
            plans.RunSql(database="shop", statement="UPDATE t SET a = %s", parameters=("1", "null")),
        ]
        assert plan.pause == plans.PauseRules(
            deadline_seconds=600, default_action=plans.PauseDefault.STOP, step_approval_seconds=60
        )
        assert (plan.segment, plan.execution_id, plan.journal_digest) == (2, "x-1", digest(b"results"))
        assert [step.needs_approval for step in plan.steps].index(True) == 3

    def test_the_compensations_of_the_golden_plan(self) -> None:
        """What makes up for a step is a live action with its defaults; an edit of the far side's has none."""
        body = (GOLDEN / "plan_live_kinds.json").read_bytes().rstrip(b"\n")
        found = [step.compensation for step in WireDocuments().open_plan(body).steps if step.compensation is not None]
        assert [(one.kind, one.description) for one in found] == [
            ("http_request", "take it back"),
            ("run_live", ""),
            ("call_tool", ""),
            ("run_sql", ""),
        ]
        assert found[0].action == plans.HttpRequest(
            method="DELETE",
            url="https://example.org/1",
            headers=(),
            content=None,
            success_codes=(),
            idempotency_header="",
        )
        assert found[2].action == plans.CallTool(server="mail", tool="recall", arguments="{}")

    def test_a_compensation_without_an_action(self) -> None:
        """It is refused where the document is read."""
        with pytest.raises(RequestMalformedError):
            compensation_from_proto(plan_pb2.Compensation(), "s1")


class TestReports:
    def test_every_kind_of_evidence_is_mapped(self) -> None:
        """Each case of the contract has its reader, and there are as many classes."""
        fields = {field.name for field in evidence_pb2.StepReport.DESCRIPTOR.oneofs_by_name["evidence"].fields}
        assert fields == set(READERS)
        assert len(fields) == len(get_args(Evidence))

    @settings(max_examples=200)
    @given(st.lists(STEPS, max_size=4))
    def test_a_report_comes_back_as_it_was(self, steps: list[StepReport]) -> None:
        """What a dry run says of the outside is what an execution reads of it."""
        documents = WireDocuments()
        report = dataclasses.replace(REPORT, steps=tuple(steps))
        assert documents.open_report(documents.seal_report(report)) == report

    def test_the_demand_names_the_steps_that_need_a_signature(self) -> None:
        """What the policy asks of single steps comes back as it was."""
        assert RECEIPT.demand is not None
        documents = WireDocuments()
        report = dataclasses.replace(REPORT, demand=dataclasses.replace(RECEIPT.demand, approve_steps=("s1", "s2")))
        assert documents.open_report(documents.seal_report(report)) == report


class TestReceipts:
    def test_every_field_of_a_live_execution_is_written(self) -> None:
        """Effects, words, cases, controls and segments stand in the receipt."""
        record = RECEIPT.approvals[0]
        effect = EffectRecord(
            state=EffectState.COMPENSATED,
            idempotency_key="k",
            summary="201",
            answer_digest=digest(b"a"),
            answer=Excerpt(head="h", tail="t", total_bytes=2, digest=digest(b"ht"), truncated=True),
            reconciliation=ReconciliationRecord(
                reconciliation_id="rec", reconciliation_digest=digest(b"r"), person="ann", key_id="k", happened=True
            ),
            compensation="done",
        )
        step = dataclasses.replace(
            RECEIPT.result.steps[0],
            segment=1,
            attempts=2,
            effect=effect,
            step_approvals=(record,),
            test_cases=(TestCase(name="t", status=TestCaseStatus.BROKEN, message="m"),),
        )
        control = ControlRecord(action="retry", actor="ann", reason="again", time=TIME, step_id="s1")
        segment = SegmentRecord(
            segment=1,
            plan_id="p-2",
            plan_digest=digest(b"p"),
            report_id="r-2",
            report_digest=digest(b"r"),
            approvals=(record,),
            started_at=TIME,
            gates=RECEIPT.gates,
            proposer=RECEIPT.proposer,
            demand=RECEIPT.demand,
            journal_digest=digest(b"j"),
        )
        result = dataclasses.replace(RECEIPT.result, steps=(step,), controls=(control,))
        receipt = dataclasses.replace(RECEIPT, result=result, segments=(segment,))
        message = sealing.open_sealed(WireDocuments().seal_receipt(receipt), evidence_pb2.Receipt)
        for written in (message.steps[0].effect, message.controls[0], message.segments[0]):
            assert len(written.ListFields()) == len(written.DESCRIPTOR.fields)
        assert len(message.steps[0].effect.reconciliation.ListFields()) == 5
        assert message.steps[0].effect.state == evidence_pb2.EFFECT_STATE_COMPENSATED
        assert (message.steps[0].segment, message.steps[0].attempts) == (1, 2)
        assert message.steps[0].test_cases[0].status == evidence_pb2.TEST_CASE_STATUS_BROKEN
        assert message.steps[0].step_approvals[0] == message.approvals[0]


class TestWords:
    def test_a_decision_about_one_step(self) -> None:
        """Every field is read."""
        message = evidence_pb2.StepApproval(
            **texts(evidence_pb2.StepApproval),
            segment=3,
            decision=evidence_pb2.DECISION_DENY,
            approved_at=stamp(),
            expires_at=stamp(),
        )
        assert dataclasses.asdict(WireDocuments().open_step_approval(sealing.seal(message))) == {
            **texts(evidence_pb2.StepApproval),
            "segment": 3,
            "decision": Decision.DENY,
            "approved_at": TIME,
            "expires_at": TIME,
        }

    def test_a_reconciliation(self) -> None:
        """Every field is read."""
        said = texts(evidence_pb2.Reconciliation)
        message = evidence_pb2.Reconciliation(**said, happened=True, decided_at=stamp())
        read = WireDocuments().open_reconciliation(sealing.seal(message))
        assert dataclasses.asdict(read) == {**said, "happened": True, "decided_at": TIME}

    def test_one_that_leaves_out_what_it_decides(self) -> None:
        """A word without its decision or its time is refused, not taken for anything."""
        with pytest.raises(RequestMalformedError):
            WireDocuments().open_step_approval(
                sealing.seal(evidence_pb2.StepApproval(approved_at=stamp(), expires_at=stamp()))
            )
        with pytest.raises(RequestMalformedError):
            WireDocuments().open_reconciliation(sealing.seal(evidence_pb2.Reconciliation(happened=True)))


class TestEvents:
    def test_an_event_of_an_older_release_is_read(self) -> None:
        """What the ledger kept before pauses had kinds and failures a path still is what it was."""
        head = '[{"event_id":"e","mission_id":"m","sequence":1,"time":"2026-03-04T05:06:07.890123Z","actor":"executor",'
        [paused] = events_from_json(head + '"execution_paused":{"reason":"the outcome is unknown"}}]')
        [failed] = events_from_json(head + '"failure_detected":{"step_id":"s","reason":"R","message":"m"}}]')
        assert paused.payload == events.ExecutionPaused(reason="the outcome is unknown")
        assert failed.payload == events.FailureDetected(step_id="s", reason="R", message="m")

    @given(
        st.builds(
            events.ExecutionPaused,
            reason=TEXTS,
            kind=st.sampled_from(PauseKind),
            step_id=TEXTS,
            deadline=st.none() | st.datetimes(datetime(1970, 1, 2), datetime(9999, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis adds the zone
            default_action=st.none() | st.sampled_from(plans.PauseDefault),
            results_digest=TEXTS,
            change_set_digest=TEXTS,
        )
    )
    def test_a_pause_comes_back_as_it_was(self, paused: events.ExecutionPaused) -> None:
        """What it waits for, and that it waits for ever, survives the ledger."""
        event = Event(event_id="e", mission_id="m", sequence=1, time=TIME, payload=paused)
        assert events_from_json(events_to_json([event])) == (event,)


def texts(message: Any) -> dict[str, str]:
    """A text of its own for every text field."""
    return {
        field.name: f"the {field.name}" for field in message.DESCRIPTOR.fields if field.cpp_type == field.CPPTYPE_STRING
    }


def stamp() -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(TIME)
    return moment
