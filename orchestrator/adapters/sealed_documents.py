"""Sealed documents as the orchestrator writes and reads them."""

import json
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from gonogo import sealing, signatures
from gonogo.digests import digest
from gonogo.policy import Demand, Policy, Requirement
from gonogo.policy_document import open_policy
from gonogo.v1 import evidence_pb2, plan_pb2
from orchestrator.adapters.contract_errors import contract_error
from orchestrator.adapters.field_mapper import MessageMap, message_map
from orchestrator.adapters.report_findings import findings_of, words_in
from orchestrator.domain.evidence import (
    ApprovalFacts,
    Outcome,
    ReceiptFacts,
    ReconciliationFacts,
    RefusalFacts,
    ReportFacts,
    ReportStatus,
    RiskLevel,
    Sealed,
    StepApprovalFacts,
)
from orchestrator.domain.findings import Findings
from orchestrator.domain.plan import Plan, PlanDraft, Scope

KNOWN_SCOPES: Final = 4096
KNOWN_REPORTS: Final = 4096

M = TypeVar("M", bound=Message)
T = TypeVar("T")

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class SealedDocuments:
    """`Documents` over the contract's sealing and signatures."""

    def __init__(self) -> None:
        self._plans: MessageMap[Plan] = message_map(Plan, plan_pb2.Plan)
        self._scopes: MessageMap[Scope] = message_map(Scope, plan_pb2.Scope)
        self._approvals: MessageMap[ApprovalFacts] = message_map(ApprovalFacts, evidence_pb2.Approval)
        self._step_approvals: MessageMap[StepApprovalFacts] = message_map(StepApprovalFacts, evidence_pb2.StepApproval)
        self._reconciliations: MessageMap[ReconciliationFacts] = message_map(
            ReconciliationFacts, evidence_pb2.Reconciliation
        )
        self._keys: dict[str, signatures.PublicKey] = {}
        self._policies: dict[str, Policy] = {}
        self._sealed_scopes: dict[str, Scope | None] = {}
        """The scopes of the plans that were sealed lately, by the plans' digests."""
        self._reports: dict[str, ReportFacts] = {}
        """What the reports say that were opened lately, by digest: each approval asks again."""

    def seal_plan(self, plan: Plan) -> Sealed:
        body = _encode(self._plans.to_json(plan)).encode()
        sealed = Sealed(media_type=sealing.PLAN, body=body, signatures=(), digest=digest(body))
        if len(self._sealed_scopes) >= KNOWN_SCOPES:
            self._sealed_scopes.clear()
        self._sealed_scopes[sealed.digest] = plan.scope
        return sealed

    def open_plan(self, sealed: Sealed) -> PlanDraft:
        plan = self._plans.from_message(_strict(sealed, sealing.PLAN, plan_pb2.Plan))
        return PlanDraft(
            objective=plan.objective,
            workspace=plan.workspace_id,
            scope=plan.scope,
            failure_policy=plan.failure_policy,
            steps=plan.steps,
            pause=plan.pause,
        )

    def scope_of(self, plan: Sealed) -> Scope:
        known = self._sealed_scopes.get(plan.digest)
        return known or self._scopes.from_json(_facts(plan, sealing.PLAN).get("scope", {}))

    def open_approval(self, sealed: Sealed) -> ApprovalFacts:
        return self._approvals.from_message(_strict(sealed, sealing.APPROVAL, evidence_pb2.Approval))

    def open_step_approval(self, sealed: Sealed) -> StepApprovalFacts:
        return self._step_approvals.from_message(_strict(sealed, sealing.STEP_APPROVAL, evidence_pb2.StepApproval))

    def open_reconciliation(self, sealed: Sealed) -> ReconciliationFacts:
        return self._reconciliations.from_message(_strict(sealed, sealing.RECONCILIATION, evidence_pb2.Reconciliation))

    def open_report(self, sealed: Sealed) -> ReportFacts:
        _check_type(sealed, sealing.REPORT)
        facts = self._reports.get(sealed.digest)
        if facts is None:
            facts = _report_facts(_facts(sealed, sealing.REPORT))
            if len(self._reports) >= KNOWN_REPORTS:
                self._reports.clear()
            self._reports[sealed.digest] = facts
        return facts

    def open_findings(self, report: Sealed) -> Findings:
        return findings_of(_facts(report, sealing.REPORT))

    def words_of(self, receipt: Sealed) -> tuple[str, ...]:
        named = b"step_approvals" in receipt.body or b"reconciliation" in receipt.body
        return tuple(words_in(_facts(receipt, sealing.RECEIPT))) if named else ()  # most receipts are not read for it

    def open_receipt(self, sealed: Sealed) -> ReceiptFacts:
        said = _facts(sealed, sealing.RECEIPT)
        return ReceiptFacts(
            receipt_id=_text(said, "receipt_id"),
            execution_id=_text(said, "execution_id"),
            mission_id=_text(said, "mission_id"),
            plan_digest=_text(said, "plan_digest"),
            executor_id=_text(said, "executor_id"),
            outcome=Outcome(_name(said, "execution_status", "OUTCOME_", Outcome)),
            steps_succeeded=_of(said, "steps_succeeded", int, 0),
            steps_failed=_of(said, "steps_failed", int, 0),
            paths_changed=_paths(
                [step for step in _list(said, "steps") if not step.get("rollback_succeeded")], "actual_state_change"
            ),
            abort_reason=_text(said, "abort_reason"),
            errors=tuple(str(error) for error in _list(said, "errors")),
            segment_plan_digests=tuple(_text(segment, "plan_digest") for segment in _list(said, "segments")),
        )

    def open_refusal(self, sealed: Sealed) -> RefusalFacts:
        said = _facts(sealed, sealing.REFUSAL)
        return RefusalFacts(
            refusal_id=_text(said, "refusal_id"),
            gate=_of(said, "gate", int, 0),
            reason=_text(said, "abort_reason"),
            message=_text(said, "message"),
            remedy=_text(said, "remedy"),
            paths=tuple(str(path) for path in _list(said, "paths")),
        )

    def open_policy(self, sealed: Sealed) -> Policy:
        _check_type(sealed, sealing.POLICY)
        policy = self._policies.get(sealed.digest)
        if policy is None:
            try:
                policy = open_policy(sealed.body)
            except sealing.SealingError as error:
                raise contract_error(str(error)) from None
            self._policies = {sealed.digest: policy}  # one is in force at a time
        return policy

    def names_object(self, report: Sealed, digest: str) -> bool:
        return json.dumps(digest).encode() in report.body

    def verify(self, sealed: Sealed, public_key: str) -> None:
        signature = sealed.signatures[0]
        try:
            key = self._keys.get(public_key)
            if key is None:
                key = self._keys[public_key] = signatures.load_public_key(public_key)
            if signature.key_id != key.key_id:
                raise contract_error("the signature names another key")
            signatures.verify(
                key,
                scheme=signature.scheme,
                signature=signature.signature,
                media_type=sealed.media_type,
                body=sealed.body,
                extra=signature.extra,
            )
        except signatures.SignatureError as error:
            raise contract_error(str(error)) from None


def _strict(sealed: Sealed, media_type: str, message_type: type[M]) -> M:
    _check_type(sealed, media_type)
    try:
        return sealing.open_sealed(sealed.body, message_type)
    except sealing.SealingError as error:
        raise contract_error(str(error)) from None


def _check_type(sealed: Sealed, media_type: str) -> None:
    if sealed.media_type != media_type:
        raise contract_error(f"the document is a {sealed.media_type[:100]!r}, not a {media_type}")


def _facts(sealed: Sealed, media_type: str) -> dict[str, Any]:
    _check_type(sealed, media_type)
    try:
        said = json.loads(sealed.body)
    except (ValueError, RecursionError) as error:
        raise contract_error(f"the document is not JSON: {error}") from None
    if not isinstance(said, dict):
        raise contract_error("the document is not a JSON object")
    return said


def _of(said: dict[str, Any], name: str, expected: type[T], default: T) -> T:
    value = said.get(name, default)
    if type(value) is not expected:
        raise contract_error(f"{name} is not a {expected.__name__}")
    return value


def _text(said: dict[str, Any], name: str) -> str:
    return _of(said, name, str, "")


def _list(said: dict[str, Any], name: str) -> list[Any]:
    return _of(said, name, list, [])


def _report_facts(said: dict[str, Any]) -> ReportFacts:
    problem: dict[str, Any] = (_list(said, "problems") or [{}])[0]
    risk = _of(said, "risk", dict, {})
    return ReportFacts(
        report_id=_text(said, "report_id"),
        mission_id=_text(said, "mission_id"),
        plan_id=_text(said, "plan_id"),
        plan_digest=_text(said, "plan_digest"),
        executor_id=_text(said, "executor_id"),
        status=ReportStatus(_name(said, "status", "REPORT_STATUS_", ReportStatus)),
        risk=RiskLevel(_name(risk, "level", "RISK_LEVEL_", RiskLevel)) if "level" in risk else None,
        change_count=_paths(_list(said, "steps"), "changes"),
        reason=_text(problem, "reason"),
        message=_text(problem, "message"),
        policy_digest=_text(said, "policy_digest"),
        demand=_demand(_of(said, "demand", dict, {})) if "demand" in said else None,
        proposer=_text(_of(said, "proposer", dict, {}), "person"),
    )


def _demand(said: dict[str, Any]) -> Demand:
    level = _text(said, "min_ladder_level").removeprefix("LADDER_LEVEL_L")
    return Demand(
        requirements=tuple(
            Requirement(count=_of(one, "count", int, 0), group=_text(one, "group"))
            for one in _list(said, "requirements")
        ),
        rules=tuple(str(rule) for rule in _list(said, "rules")),
        max_approval_seconds=_of(said, "max_approval_seconds", int, 0),
        hardware_key=_of(said, "hardware_key", bool, False),
        min_ladder_level=int(level) if level.isdecimal() else None,
        refused=_text(said, "refused"),
        approve_steps=tuple(str(step_id) for step_id in _list(said, "approve_steps")),
    )


def _name(said: dict[str, Any], field: str, prefix: str, known: type[Any]) -> str:
    name = _text(said, field).removeprefix(prefix)
    if not _text(said, field).startswith(prefix) or name not in known.__members__:
        raise contract_error(f"{field}: {_text(said, field)[:64]!r} is not known")
    return str(known[name].value)


def _paths(steps: list[Any], field: str) -> int:
    """Count the paths that the steps changed, each once."""
    changes = (change for step in steps for change in _list(step, field))
    return len({(change.get("path", ""), change.get("raw_path", "")) for change in changes})
