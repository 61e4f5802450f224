"""The executor's mapper covers the whole contract, and what it maps comes back as it was."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from executor.adapters.wire import WireDocuments, sealed_from_proto, sealed_to_proto
from executor.adapters.wire_enums import TABLES, EnumTable
from executor.adapters.wire_events import (
    ENUMS,
    PAYLOADS,
    TIMES,
    event_to_proto,
    events_from_json,
    events_to_json,
)
from executor.adapters.wire_live import OUTSIDE
from executor.adapters.wire_plan import ACTIONS
from executor.domain import plan as plans
from executor.domain.approval import Approval, Decision
from executor.domain.changes import Change, ChangeKind, Node, NodeType
from executor.domain.control import ControlAction, PauseKind
from executor.domain.errors import RequestMalformedError
from executor.domain.events import ExecutionPaused, Payload
from executor.domain.ladder import LadderLevel
from executor.domain.plan import KINDS, PauseDefault, Stage
from executor.domain.receipt import ApprovalRecord, ExecutionResult, GateRecord, Outcome, Receipt, Refusal, StepReceipt
from executor.domain.report import (
    CommandEvidence,
    Evidence,
    Excerpt,
    ListEvidence,
    Problem,
    ReadEvidence,
    Report,
    ReportStatus,
    RiskFact,
    RiskLevel,
    SearchEvidence,
    SearchMatch,
    SelfApproval,
    StepReport,
    TestEvidence,
    TestVerdict,
)
from executor.domain.revocation import Revocation, RevocationKind
from executor.domain.sealed import SealedBytes, Signature
from executor.runner.ports import Event
from gonogo import sealing
from gonogo.digests import digest
from gonogo.policy import Demand, Proposer, ProposerKind, Requirement
from gonogo.v1 import events_pb2, evidence_pb2, executor_pb2, orchestrator_pb2, plan_pb2, sealed_pb2

GOLDEN = Path(__file__).parent / "golden"
TIME = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)
FILE = Node(type=NodeType.FILE, mode=0o644, digest=digest(b"a"), size=2**40, xattrs=(("user.a", b"\x00\xff"),))
LINK = Node(type=NodeType.SYMLINK, mode=0o777, link_target=b"to/\xff")
TEXT = Excerpt(head="a\x1b", tail="z", total_bytes=2**40, digest=digest(b"t"), truncated=True)
COMMAND = CommandEvidence(exit_code=0, signal=0, timed_out=False, stdout=TEXT, stderr=TEXT)
CHANGES = (
    Change(path=b"a", kind=ChangeKind.CREATE, old=None, new=FILE),
    Change(path=b"b\xff\n", kind=ChangeKind.DELETE, old=LINK, new=None),
    Change(path=b"c", kind=ChangeKind.MOVE, old=FILE, new=FILE, moved_from=b"d\xfe"),
    Change(path=b"e", kind=ChangeKind.MODIFY, old=dataclasses.replace(FILE, size=0), new=FILE),
)
EVIDENCE: tuple[Evidence | None, ...] = (
    None,
    ReadEvidence(node=FILE, preview=TEXT),
    ListEvidence(entries=((b"n\xff", FILE), (b"o", LINK)), count=2, digest=digest(b"l")),
    SearchEvidence(count=1, matches=(SearchMatch(path="a", line=3, text="t"),), digest=digest(b"s")),
    COMMAND,
    dataclasses.replace(COMMAND, exit_code=None, signal=9, timed_out=True),
    TestEvidence(verdict=TestVerdict.FAIL, command=COMMAND, tests=4, failures=1, errors=1, skipped=1),
)
REPORT = Report(
    report_id="r-1",
    mission_id="m-1",
    intent_id="i-1",
    plan_id="p-1",
    plan_digest=digest(b"plan"),
    workspace_id="site",
    executor_id="executor-test",
    ledger_epoch="epoch",
    nonce="nonce",
    status=ReportStatus.UNSAFE,
    problems=(Problem(step_id="s1", path="a", reason="UNSUPPORTED", message="what", remedy="how"),),
    started_at=TIME,
    completed_at=TIME + timedelta(seconds=1),
    ladder_level=LadderLevel.L0,
    self_approval=SelfApproval.REFUSED,
    policy_digest=digest(b"policy"),
    base_fingerprint=digest(b"base"),
    after_fingerprint=digest(b"after"),
    manifest_digest="",
    steps=tuple(
        StepReport(
            step_id=f"s{number}",
            kind="write_file",
            stage=Stage.EDIT,
            success=bool(number % 2),
            changes=CHANGES,
            evidence=evidence,
            duration_ms=number,
        )
        for number, evidence in enumerate(EVIDENCE)
    ),
    risk_level=RiskLevel.HIGH,
    risk_facts=(RiskFact(kind="delete", path="b", detail="gone", level=RiskLevel.MEDIUM),),
)
RECEIPT = Receipt(
    receipt_id="rc-1",
    execution_id="x-1",
    mission_id="m-1",
    intent_id="i-1",
    message_id="",
    transcription_id="",
    plan_id="p-1",
    plan_digest=digest(b"plan"),
    report_id="r-1",
    report_digest=digest(b"report"),
    approvals=(
        ApprovalRecord(
            approval_id="a-1",
            approval_digest=digest(b"a"),
            approver="owner",
            key_id="SHA256:k",
            approved_at=TIME,
            scheme="sshsig",
            expires_at=TIME,
            hardware_key=True,
        ),
    ),
    executor_id="executor-test",
    workspace_id="site",
    ledger_epoch="epoch",
    ladder_level=LadderLevel.L3,
    self_approval=SelfApproval.ALLOWED,
    policy_digest=digest(b"policy"),
    started_at=TIME,
    completed_at=TIME + timedelta(milliseconds=7),
    execution_duration_ms=7,
    base_fingerprint=digest(b"base"),
    expected_after_fingerprint=digest(b"after"),
    result=ExecutionResult(
        outcome=Outcome.PARTIAL,
        steps=tuple(
            StepReceipt(
                step_id=f"s{number}",
                operation="run_tests",
                target="[pytest]",
                action_type="verify",
                stage=Stage.TEST,
                started_at=TIME,
                completed_at=TIME,
                duration_ms=1,
                precondition_met=True,
                precondition_detail="same",
                expected_vs_actual_match=not verdict,
                actual_state_change=CHANGES,
                success=not verdict,
                rollback_invoked=bool(verdict),
                rollback_succeeded=bool(verdict),
                error_message="",
                test_verdict=verdict,
            )
            for number, verdict in enumerate((None, TestVerdict.FAIL, None))
        ),
        before=((b"a", None), (b"b\xff", LINK)),
        after=((b"a", FILE), (b"b\xff", None)),
        after_fingerprint=digest(b"other"),
        divergence_details=("a: other bytes",),
        abort_reason="",
        errors=("s1 failed",),
    ),
    gates=(GateRecord(gate=1, name="report_exists", detail="r-1"),),
    proposer=Proposer(kind=ProposerKind.AGENT, person="bot", sponsor="owner"),
    demand=Demand(requirements=(Requirement(count=1, group="sre"),), rules=("prod",), max_approval_seconds=60),
)


class TestClosedTables:
    @pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
    def test_every_value_of_the_contract_is_mapped(self, table: EnumTable[object, int]) -> None:
        """A value that the contract gains is missing here until somebody decides what it means."""
        assert table.numbers == {number for number in table.descriptor.values_by_number if number}
        for number in table.numbers:
            assert table.to_wire(table.from_wire(number)) == number
            assert table.from_name(table.to_name(table.from_wire(number))) == table.from_wire(number)

    @pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
    @pytest.mark.parametrize("number", [0, 99, -1])
    def test_the_unspecified_and_the_unknown_are_refused(self, table: EnumTable[object, int], number: int) -> None:
        """No number stands for something by default."""
        with pytest.raises(RequestMalformedError):
            table.from_wire(number)

    def test_every_enum_of_the_executors_documents_has_a_table(self) -> None:
        """The tables are all there are for the files that the executor reads and writes."""
        known = {table.descriptor.full_name for table in TABLES}
        orchestrators = {"gonogo.v1.IntentKind", "gonogo.v1.MissionStatus", "gonogo.v1.Rating"}
        policys = {"gonogo.v1.ProposerKind"}  # the contract's own mapper of policies has that table
        modules = (plan_pb2, evidence_pb2, events_pb2, executor_pb2, sealed_pb2)
        enums = {enum.full_name for module in modules for enum in module.DESCRIPTOR.enum_types_by_name.values()}
        assert enums - orchestrators - policys == known
        assert orchestrator_pb2.DESCRIPTOR.package == "gonogo.v1"


class TestSteps:
    def test_every_kind_of_step_is_mapped(self) -> None:
        """Each case of the contract's action has its function and its class, and no other has."""
        fields = {field.name for field in plan_pb2.Step.DESCRIPTOR.oneofs_by_name["action"].fields}
        assert fields == set(ACTIONS) == set(KINDS.values())
        assert set(KINDS) == set(get_args(plans.Action))

    def test_every_field_of_every_kind_is_mapped(self) -> None:
        """A class has the fields of its message; the two forms of content are one."""
        for kind, name in KINDS.items():
            message = plan_pb2.Step.DESCRIPTOR.fields_by_name[name].message_type
            assert message is not None
            theirs = {"content" if field.name == "data" else field.name for field in message.fields}
            assert theirs == {field.name for field in dataclasses.fields(kind)}

    def test_a_plan_of_every_kind(self) -> None:
        """The golden plan of the first release, with every kind of step that it had, reads as these values."""
        body = (GOLDEN / "plan_every_kind.json").read_bytes().rstrip(b"\n")
        plan = WireDocuments().open_plan(body)
        assert [step.action for step in plan.steps] == [
            plans.ReadFile(path="a"),
            plans.ListDirectory(path="."),
            plans.SearchFiles(pattern="x+", path=".", literal=False),
            plans.CreateFile(path="b", content=b"text\n", mode=0o644),
            plans.CreateFile(path="c", content=b"\x00\xff", mode=0o600),
            plans.CreateDirectory(path="d", mode=0o755),
            plans.WriteFile(path="a", content=b"", mode=None),
            plans.WriteFile(path="a", content="ü".encode(), mode=0o755),
            plans.PatchFile(path="a", patch="@@ -1 +1 @@\n-a\n+b\n"),
            plans.ReplaceText(path="a", old="x", new="", expected_count=2),
            plans.AppendText(path="a", content="end\n"),
            plans.MovePath(path="a", to="e"),
            plans.DeletePath(path="d", recursive=True),
            plans.SetMode(path="e", mode=0o750),
            plans.RunCommand(argv=("make", "-s"), cwd="", env={"A": "b"}, success_codes=(0, 2)),
            plans.RunCommand(argv=("true",), cwd="sub", env={}, success_codes=(0,)),
            plans.RunTests(argv=("t",), junit="j.xml", cwd="", env={}, expect=plans.TestExpectation.PASS),
            plans.RunTests(argv=("t",), junit="j.xml", cwd="", env={}, expect=plans.TestExpectation.FAIL),
            plans.UndoStep(mission_id="m-0", step_id="s3"),
        ]
        assert {step.kind for step in plan.steps} == set(ACTIONS) - set(OUTSIDE)
        assert dataclasses.replace(plan, steps=()) == plans.Plan(
            plan_id="p-1",
            mission_id="m-1",
            intent_id="i-1",
            message_id="msg-1",
            transcription_id="t-1",
            objective="every kind",
            workspace_id="site",
            executor_id="executor-test",
            proposer="owner",
            created_at=TIME,
            scope=plans.Scope(
                paths=("**",),
                domains=(),
                network=plans.NetworkAccess.NONE,
                max_pages=1,
                max_duration_seconds=60,
                max_bytes=5_000_000_000,
            ),
            failure_policy=plans.FailurePolicy.ROLL_BACK,
            steps=(),
            pause=plans.PauseRules(
                deadline_seconds=86_400, default_action=plans.PauseDefault.ROLL_BACK, step_approval_seconds=3_600
            ),
        )

    def test_the_golden_plans_digest(self) -> None:
        """The digest of a plan's bytes is for ever."""
        body = (GOLDEN / "plan_every_kind.json").read_bytes().rstrip(b"\n")
        assert digest(body) == (GOLDEN / "plan_every_kind.digest").read_text().strip()


class TestReports:
    def test_a_report_comes_back_as_it_was(self) -> None:
        """What the executor seals is what it reads, to the last byte of a file name."""
        documents = WireDocuments()
        assert documents.open_report(documents.seal_report(REPORT)) == REPORT

    def test_a_report_says_who_proposed_and_what_is_demanded(self) -> None:
        """Proposer and demand come back as they were."""
        documents = WireDocuments()
        report = dataclasses.replace(REPORT, proposer=RECEIPT.proposer, demand=RECEIPT.demand)
        assert documents.open_report(documents.seal_report(report)) == report

    @pytest.mark.parametrize("status", list(ReportStatus))
    def test_every_status(self, status: ReportStatus) -> None:
        """Each status survives."""
        documents = WireDocuments()
        report = dataclasses.replace(REPORT, status=status)
        assert documents.open_report(documents.seal_report(report)) == report

    def test_the_golden_report(self) -> None:
        """A report of an older release still reads as these values, and still is written as these bytes."""
        body = (GOLDEN / "report.json").read_bytes().rstrip(b"\n")
        assert WireDocuments().open_report(body) == REPORT
        assert json.loads(WireDocuments().seal_report(REPORT)) == json.loads(body)

    def test_a_path_whose_two_forms_disagree(self) -> None:
        """The shown name of a path can not hide another one."""
        message = sealing.open_sealed(WireDocuments().seal_report(REPORT), evidence_pb2.Report)
        message.steps[0].changes[0].raw_path = b"other"
        with pytest.raises(RequestMalformedError):
            WireDocuments().open_report(sealing.seal(message))


class TestReceipts:
    def test_every_field_is_written(self) -> None:
        """Nothing that the executor knows about an execution is left out of its receipt."""
        message = sealing.open_sealed(WireDocuments().seal_receipt(RECEIPT), evidence_pb2.Receipt)
        filled = {field.name for field, _ in message.ListFields()}
        empty = {"message_id", "transcription_id", "abort_reason", "segments", "controls"}
        assert filled == {field.name for field in evidence_pb2.Receipt.DESCRIPTOR.fields} - empty
        step = message.steps[1]
        always = {field.name for field in evidence_pb2.StepReceipt.DESCRIPTOR.fields}
        unset = {"success", "expected_vs_actual_match", "error_message"}
        unset |= {"segment", "effect", "step_approvals", "test_cases"}
        assert {field.name for field, _ in step.ListFields()} == always - unset
        assert (message.steps_succeeded, message.steps_failed) == (2, 1)
        assert message.divergence_detected
        assert [snapshot.raw_path for snapshot in message.before] == [b"", b"b\xff"]
        assert not message.before[0].HasField("node")

    def test_a_refusal(self) -> None:
        """A refusal names its gate, reason and remedy, and paths in a form that can be read."""
        refusal = Refusal(
            refusal_id="rf-1",
            mission_id="m-1",
            plan_digest=digest(b"plan"),
            report_digest=digest(b"report"),
            executor_id="executor-test",
            gate=6,
            abort_reason="BASE_DRIFTED",
            message="changed",
            remedy="again",
            paths=(b"a\xff",),
            path_count=7,
            refused_at=TIME,
        )
        message = sealing.open_sealed(WireDocuments().seal_refusal(refusal), evidence_pb2.Refusal)
        assert {field.name for field, _ in message.ListFields()} == {
            field.name for field in evidence_pb2.Refusal.DESCRIPTOR.fields
        }
        assert list(message.paths) == ["a\\xff"]

    def test_a_receipt_of_a_claim_of_an_older_release(self) -> None:
        """What was claimed before there were rules still gets its receipt; what nobody knows of it stays unset."""
        old = dataclasses.replace(RECEIPT, gates=(), proposer=None, demand=None)
        message = sealing.open_sealed(WireDocuments().seal_receipt(old), evidence_pb2.Receipt)
        assert not message.HasField("proposer")
        assert not message.HasField("demand")

    def test_every_field_of_an_approvals_record(self) -> None:
        """A receipt tells everything about the approvals that it stands on."""
        message = sealing.open_sealed(WireDocuments().seal_receipt(RECEIPT), evidence_pb2.Receipt)
        filled = {field.name for field, _ in message.approvals[0].ListFields()}
        assert filled == {field.name for field in evidence_pb2.ApprovalRecord.DESCRIPTOR.fields}


class TestRevocations:
    def test_a_revocation(self) -> None:
        """Every field of a revocation is read."""
        now = Timestamp()
        now.FromDatetime(TIME)
        texts = {
            field.name: f"the {field.name}"
            for field in evidence_pb2.Revocation.DESCRIPTOR.fields
            if field.cpp_type == field.CPPTYPE_STRING
        }
        message = evidence_pb2.Revocation(**texts, kind=evidence_pb2.REVOCATION_KIND_DENY, revoked_at=now)
        revocation = WireDocuments().open_revocation(sealing.seal(message))
        assert dataclasses.asdict(revocation) == {**texts, "kind": RevocationKind.DENY, "revoked_at": TIME}
        assert {field.name for field in dataclasses.fields(Revocation)} == {
            field.name for field in evidence_pb2.Revocation.DESCRIPTOR.fields
        }


class TestApprovals:
    def test_an_approval(self) -> None:
        """Every field of an approval is read."""
        now = Timestamp()
        now.FromDatetime(TIME)
        texts = {
            field.name: f"the {field.name}"
            for field in evidence_pb2.Approval.DESCRIPTOR.fields
            if field.cpp_type == field.CPPTYPE_STRING
        }
        message = evidence_pb2.Approval(
            **texts, decision=evidence_pb2.DECISION_DENY, approved_at=now, not_before=now, expires_at=now
        )
        approval = WireDocuments().open_approval(sealing.seal(message))
        assert dataclasses.asdict(approval) == {
            **texts,
            "decision": Decision.DENY,
            "approved_at": TIME,
            "not_before": TIME,
            "expires_at": TIME,
        }
        assert {field.name for field in dataclasses.fields(Approval)} == {
            field.name for field in evidence_pb2.Approval.DESCRIPTOR.fields
        }

    def test_a_missing_time(self) -> None:
        """An approval without its times is refused, not read as 1970."""
        with pytest.raises(RequestMalformedError):
            WireDocuments().open_approval(sealing.seal(evidence_pb2.Approval(decision=evidence_pb2.DECISION_APPROVE)))


class TestEvents:
    def test_every_event_has_the_fields_of_its_message(self) -> None:
        """Class and message agree by name, and enums are where the table says."""
        assert set(PAYLOADS) == set(get_args(Payload))
        for payload, name in PAYLOADS.items():
            field = events_pb2.Event.DESCRIPTOR.fields_by_name[name]
            assert field.containing_oneof is not None
            assert field.message_type is not None
            assert field.message_type.name == payload.__name__
            assert {one.name for one in field.message_type.fields} == {one.name for one in dataclasses.fields(payload)}
            enums = {one.name: one.enum_type for one in field.message_type.fields if one.enum_type is not None}
            assert enums == {name: table.descriptor for name, table in ENUMS[payload].items()}
            times = {one.name for one in field.message_type.fields if one.message_type == Timestamp.DESCRIPTOR}
            assert times == {one.name for one in dataclasses.fields(payload)} & TIMES

    @pytest.mark.parametrize("kind", list(PAYLOADS), ids=lambda kind: kind.__name__)
    def test_the_stored_text_is_the_messages_own(self, kind: type[Payload]) -> None:
        """What the ledger keeps is ProtoJSON of the event, and comes back as the event."""
        samples = {
            "stage": Stage.TEST,
            "risk": RiskLevel.HIGH,
            "outcome": Outcome.PARTIAL,
            "stream": "stderr",
            "details": ("a", "b"),
            "deadline": TIME,
            "default_action": PauseDefault.STOP,
        }
        if kind is ExecutionPaused:
            samples["kind"] = PauseKind.UNKNOWN_EFFECT
            samples["actions"] = (ControlAction.RECONCILE, ControlAction.STOP)
        types: dict[str, object] = {"str": 'tex"t\n', "int": 7, "bool": True}
        values = {
            field.name: samples.get(field.name, types.get(getattr(field.type, "__name__", str(field.type))))
            for field in dataclasses.fields(kind)
        }
        event = Event(event_id="e-1", mission_id="m-1", sequence=3, time=TIME, payload=kind(**values))  # type: ignore[arg-type]  # by name
        text = events_to_json([event])[1:-1]
        assert json_format.Parse(text, events_pb2.Event()) == event_to_proto(event)
        assert events_from_json(events_to_json([event, event])) == (event, event)


def test_an_envelope_comes_back_as_it_was() -> None:
    """The body of a document is never touched on its way."""
    signature = Signature(key_id="SHA256:k", scheme="sshsig", signature=b"\x00s", extra=b"e")
    document = SealedBytes(media_type=sealing.PLAN, body=b"\x00any bytes\xff", signatures=(signature,))
    assert sealed_from_proto(sealed_to_proto(document)) == document
