"""The enums of the contract and those of the domain: closed tables, both ways, the unknown refused."""

from collections.abc import Mapping
from typing import Final, Generic, TypeVar

from google.protobuf.descriptor import EnumDescriptor

from executor.domain.approval import Decision
from executor.domain.changes import ChangeKind, NodeType
from executor.domain.control import ControlAction, ExecutionState, PauseKind
from executor.domain.errors import RequestMalformedError
from executor.domain.ladder import LadderLevel
from executor.domain.plan import FailurePolicy, LiveAccess, NetworkAccess, PauseDefault, Stage, TestExpectation
from executor.domain.receipt import EffectState, Outcome
from executor.domain.report import ReportStatus, RiskLevel, SelfApproval, TestCaseStatus, TestVerdict
from executor.domain.revocation import RevocationKind
from gonogo.v1 import events_pb2, evidence_pb2, executor_pb2, plan_pb2

D = TypeVar("D")
W = TypeVar("W", bound=int)


class EnumTable(Generic[D, W]):
    """One enum's table."""

    def __init__(self, name: str, descriptor: EnumDescriptor, pairs: Mapping[D, W]) -> None:
        self.name = name
        self.descriptor = descriptor
        self._to_wire = dict(pairs)
        self._from_wire: dict[int, D] = {int(number): value for value, number in pairs.items()}
        self._to_name = {value: descriptor.values_by_number[int(number)].name for value, number in pairs.items()}
        self._from_name = {name: value for value, name in self._to_name.items()}

    def to_wire(self, value: D) -> W:
        """Return the contract's number."""
        return self._to_wire[value]

    def from_wire(self, number: int) -> D:
        """Return the domain's value; the unspecified and the unknown are refused."""
        value = self._from_wire.get(number)
        if value is None:
            raise RequestMalformedError(
                "MALFORMED", f"the document has no known {self.name}: {number}", "use the names of the contract"
            )
        return value

    def to_name(self, value: D) -> str:
        """Return the contract's name, as ProtoJSON has it."""
        return self._to_name[value]

    def from_name(self, name: str) -> D:
        """Return the domain's value for a name that `to_name` gave."""
        return self._from_name[name]

    @property
    def numbers(self) -> frozenset[int]:
        """The contract's numbers in the table."""
        return frozenset(self._from_wire)


STAGES: Final = EnumTable(
    "stage",
    plan_pb2.Stage.DESCRIPTOR,
    {
        Stage.PLAN: plan_pb2.STAGE_PLAN,
        Stage.RETRIEVE: plan_pb2.STAGE_RETRIEVE,
        Stage.EDIT: plan_pb2.STAGE_EDIT,
        Stage.TEST: plan_pb2.STAGE_TEST,
        Stage.REPAIR: plan_pb2.STAGE_REPAIR,
    },
)
FAILURE_POLICIES: Final = EnumTable(
    "failure policy",
    plan_pb2.FailurePolicy.DESCRIPTOR,
    {
        FailurePolicy.PAUSE: plan_pb2.FAILURE_POLICY_PAUSE,
        FailurePolicy.ROLL_BACK: plan_pb2.FAILURE_POLICY_ROLL_BACK,
        FailurePolicy.STOP: plan_pb2.FAILURE_POLICY_STOP,
        FailurePolicy.CONTINUE: plan_pb2.FAILURE_POLICY_CONTINUE,
    },
)
NETWORKS: Final = EnumTable(
    "network access",
    plan_pb2.NetworkAccess.DESCRIPTOR,
    {
        NetworkAccess.NONE: plan_pb2.NETWORK_ACCESS_NONE,
        NetworkAccess.LISTED_DOMAINS: plan_pb2.NETWORK_ACCESS_LISTED_DOMAINS,
    },
)
EXPECTATIONS: Final = EnumTable(
    "test expectation",
    plan_pb2.TestExpectation.DESCRIPTOR,
    {
        TestExpectation.PASS: plan_pb2.TEST_EXPECTATION_PASS,
        TestExpectation.FAIL: plan_pb2.TEST_EXPECTATION_FAIL,
        TestExpectation.ANY: plan_pb2.TEST_EXPECTATION_ANY,
    },
)
STATUSES: Final = EnumTable(
    "report status",
    evidence_pb2.ReportStatus.DESCRIPTOR,
    {
        ReportStatus.SUCCESS: evidence_pb2.REPORT_STATUS_SUCCESS,
        ReportStatus.UNSAFE: evidence_pb2.REPORT_STATUS_UNSAFE,
        ReportStatus.BLOCKED: evidence_pb2.REPORT_STATUS_BLOCKED,
        ReportStatus.FAILED: evidence_pb2.REPORT_STATUS_FAILED,
    },
)
LADDER: Final = EnumTable(
    "ladder level",
    plan_pb2.LadderLevel.DESCRIPTOR,
    {
        LadderLevel.L0: plan_pb2.LADDER_LEVEL_L0,
        LadderLevel.L1: plan_pb2.LADDER_LEVEL_L1,
        LadderLevel.L2: plan_pb2.LADDER_LEVEL_L2,
        LadderLevel.L3: plan_pb2.LADDER_LEVEL_L3,
    },
)
SELF_APPROVALS: Final = EnumTable(
    "self approval",
    evidence_pb2.SelfApproval.DESCRIPTOR,
    {
        SelfApproval.REFUSED: evidence_pb2.SELF_APPROVAL_REFUSED,
        SelfApproval.ALLOWED: evidence_pb2.SELF_APPROVAL_ALLOWED,
    },
)
NODE_TYPES: Final = EnumTable(
    "node type",
    evidence_pb2.NodeType.DESCRIPTOR,
    {
        NodeType.FILE: evidence_pb2.NODE_TYPE_FILE,
        NodeType.DIRECTORY: evidence_pb2.NODE_TYPE_DIRECTORY,
        NodeType.SYMLINK: evidence_pb2.NODE_TYPE_SYMLINK,
        NodeType.OTHER: evidence_pb2.NODE_TYPE_OTHER,
    },
)
CHANGE_KINDS: Final = EnumTable(
    "kind of change",
    evidence_pb2.ChangeKind.DESCRIPTOR,
    {
        ChangeKind.CREATE: evidence_pb2.CHANGE_KIND_CREATE,
        ChangeKind.MODIFY: evidence_pb2.CHANGE_KIND_MODIFY,
        ChangeKind.DELETE: evidence_pb2.CHANGE_KIND_DELETE,
        ChangeKind.MOVE: evidence_pb2.CHANGE_KIND_MOVE,
        ChangeKind.TYPE_CHANGE: evidence_pb2.CHANGE_KIND_TYPE_CHANGE,
        ChangeKind.METADATA: evidence_pb2.CHANGE_KIND_METADATA,
    },
)
RISKS: Final = EnumTable(
    "risk level",
    evidence_pb2.RiskLevel.DESCRIPTOR,
    {
        RiskLevel.LOW: evidence_pb2.RISK_LEVEL_LOW,
        RiskLevel.MEDIUM: evidence_pb2.RISK_LEVEL_MEDIUM,
        RiskLevel.HIGH: evidence_pb2.RISK_LEVEL_HIGH,
    },
)
DECISIONS: Final = EnumTable(
    "decision",
    evidence_pb2.Decision.DESCRIPTOR,
    {Decision.APPROVE: evidence_pb2.DECISION_APPROVE, Decision.DENY: evidence_pb2.DECISION_DENY},
)
REVOCATION_KINDS: Final = EnumTable(
    "kind of revocation",
    evidence_pb2.RevocationKind.DESCRIPTOR,
    {
        RevocationKind.WITHDRAW: evidence_pb2.REVOCATION_KIND_WITHDRAW,
        RevocationKind.DENY: evidence_pb2.REVOCATION_KIND_DENY,
    },
)
OUTCOMES: Final = EnumTable(
    "outcome",
    evidence_pb2.Outcome.DESCRIPTOR,
    {
        Outcome.SUCCESS: evidence_pb2.OUTCOME_SUCCESS,
        Outcome.PARTIAL: evidence_pb2.OUTCOME_PARTIAL,
        Outcome.ROLLED_BACK: evidence_pb2.OUTCOME_ROLLED_BACK,
        Outcome.ABORTED: evidence_pb2.OUTCOME_ABORTED,
        Outcome.UNKNOWN: evidence_pb2.OUTCOME_UNKNOWN,
    },
)
VERDICTS: Final = EnumTable(
    "test verdict",
    evidence_pb2.TestVerdict.DESCRIPTOR,
    {TestVerdict.PASS: evidence_pb2.TEST_VERDICT_PASS, TestVerdict.FAIL: evidence_pb2.TEST_VERDICT_FAIL},
)
STREAMS: Final = EnumTable(
    "output stream",
    events_pb2.OutputStream.DESCRIPTOR,
    {"stdout": events_pb2.OUTPUT_STREAM_STDOUT, "stderr": events_pb2.OUTPUT_STREAM_STDERR},
)
LIVE_ACCESSES: Final = EnumTable(
    "access of a live program",
    plan_pb2.LiveAccess.DESCRIPTOR,
    {LiveAccess.NETWORK: plan_pb2.LIVE_ACCESS_NETWORK, LiveAccess.HOST: plan_pb2.LIVE_ACCESS_HOST},
)
PAUSE_DEFAULTS: Final = EnumTable(
    "default of a pause",
    plan_pb2.PauseDefault.DESCRIPTOR,
    {
        PauseDefault.ROLL_BACK: plan_pb2.PAUSE_DEFAULT_ROLL_BACK,
        PauseDefault.STOP: plan_pb2.PAUSE_DEFAULT_STOP,
    },
)
PAUSE_KINDS: Final = EnumTable(
    "kind of pause",
    events_pb2.PauseKind.DESCRIPTOR,
    {
        PauseKind.REQUESTED: events_pb2.PAUSE_KIND_REQUESTED,
        PauseKind.FAILURE: events_pb2.PAUSE_KIND_FAILURE,
        PauseKind.STEP_APPROVAL: events_pb2.PAUSE_KIND_STEP_APPROVAL,
        PauseKind.UNKNOWN_EFFECT: events_pb2.PAUSE_KIND_UNKNOWN_EFFECT,
        PauseKind.REVOKED: events_pb2.PAUSE_KIND_REVOKED,
        PauseKind.INTERRUPTED: events_pb2.PAUSE_KIND_INTERRUPTED,
        PauseKind.UNKNOWN_OUTCOME: events_pb2.PAUSE_KIND_UNKNOWN_OUTCOME,
    },
)
EFFECT_STATES: Final = EnumTable(
    "state of an effect",
    evidence_pb2.EffectState.DESCRIPTOR,
    {
        EffectState.DONE: evidence_pb2.EFFECT_STATE_DONE,
        EffectState.NOT_DONE: evidence_pb2.EFFECT_STATE_NOT_DONE,
        EffectState.UNKNOWN: evidence_pb2.EFFECT_STATE_UNKNOWN,
        EffectState.COMPENSATED: evidence_pb2.EFFECT_STATE_COMPENSATED,
    },
)
TEST_CASES: Final = EnumTable(
    "status of a test case",
    evidence_pb2.TestCaseStatus.DESCRIPTOR,
    {
        TestCaseStatus.PASSED: evidence_pb2.TEST_CASE_STATUS_PASSED,
        TestCaseStatus.FAILED: evidence_pb2.TEST_CASE_STATUS_FAILED,
        TestCaseStatus.BROKEN: evidence_pb2.TEST_CASE_STATUS_BROKEN,
        TestCaseStatus.SKIPPED: evidence_pb2.TEST_CASE_STATUS_SKIPPED,
    },
)
EXECUTION_STATES: Final = EnumTable(
    "state of an execution",
    executor_pb2.ExecutionState.DESCRIPTOR,
    {
        ExecutionState.RUNNING: executor_pb2.EXECUTION_STATE_RUNNING,
        ExecutionState.PAUSED: executor_pb2.EXECUTION_STATE_PAUSED,
        ExecutionState.ENDED: executor_pb2.EXECUTION_STATE_ENDED,
    },
)
CONTROL_ACTIONS: Final = EnumTable(
    "control",
    events_pb2.ControlAction.DESCRIPTOR,
    {
        ControlAction.PAUSE: events_pb2.CONTROL_ACTION_PAUSE,
        ControlAction.RESUME: events_pb2.CONTROL_ACTION_RESUME,
        ControlAction.STOP: events_pb2.CONTROL_ACTION_STOP,
        ControlAction.RETRY: events_pb2.CONTROL_ACTION_RETRY,
        ControlAction.APPROVE_STEP: events_pb2.CONTROL_ACTION_APPROVE_STEP,
        ControlAction.RECONCILE: events_pb2.CONTROL_ACTION_RECONCILE,
    },
)
TABLES: Final = (
    STAGES,
    FAILURE_POLICIES,
    NETWORKS,
    EXPECTATIONS,
    STATUSES,
    LADDER,
    SELF_APPROVALS,
    NODE_TYPES,
    CHANGE_KINDS,
    RISKS,
    DECISIONS,
    REVOCATION_KINDS,
    OUTCOMES,
    VERDICTS,
    STREAMS,
    LIVE_ACCESSES,
    PAUSE_DEFAULTS,
    PAUSE_KINDS,
    EFFECT_STATES,
    TEST_CASES,
    EXECUTION_STATES,
    CONTROL_ACTIONS,
)
