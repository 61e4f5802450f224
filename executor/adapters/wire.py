"""The executor's only border to the contract's messages: sealed bodies to domain values and back, envelopes too.

The tables and functions of each document are in the `wire_…` modules beside this one.
"""

from typing import TypeVar

from google.protobuf.message import Message

from executor.adapters.wire_plan import plan_from_proto
from executor.adapters.wire_receipt import receipt_to_proto, refusal_to_proto
from executor.adapters.wire_report import report_from_proto, report_to_proto
from executor.adapters.wire_words import (
    approval_from_proto,
    reconciliation_from_proto,
    revocation_from_proto,
    step_approval_from_proto,
)
from executor.domain.approval import Approval
from executor.domain.control import Reconciliation, StepApproval
from executor.domain.errors import RequestMalformedError
from executor.domain.plan import Plan
from executor.domain.receipt import Receipt, Refusal
from executor.domain.report import Report
from executor.domain.revocation import Revocation
from executor.domain.sealed import SealedBytes, Signature
from gonogo import policy_document, sealing
from gonogo.policy import Policy
from gonogo.v1 import evidence_pb2, plan_pb2, sealed_pb2

M = TypeVar("M", bound=Message)


class WireDocuments:
    """The port `executor.runner.ports.Documents` for ProtoJSON bodies."""

    def open_plan(self, body: bytes) -> Plan:
        return plan_from_proto(_open(body, plan_pb2.Plan))

    def open_report(self, body: bytes) -> Report:
        return report_from_proto(_open(body, evidence_pb2.Report))

    def open_approval(self, body: bytes) -> Approval:
        return approval_from_proto(_open(body, evidence_pb2.Approval))

    def open_revocation(self, body: bytes) -> Revocation:
        return revocation_from_proto(_open(body, evidence_pb2.Revocation))

    def open_step_approval(self, body: bytes) -> StepApproval:
        return step_approval_from_proto(_open(body, evidence_pb2.StepApproval))

    def open_reconciliation(self, body: bytes) -> Reconciliation:
        return reconciliation_from_proto(_open(body, evidence_pb2.Reconciliation))

    def seal_report(self, report: Report) -> bytes:
        return sealing.seal(report_to_proto(report))

    def seal_receipt(self, receipt: Receipt) -> bytes:
        return sealing.seal(receipt_to_proto(receipt))

    def seal_refusal(self, refusal: Refusal) -> bytes:
        return sealing.seal(refusal_to_proto(refusal))

    def seal_policy(self, policy: Policy) -> bytes:
        return policy_document.seal_policy(policy)


def sealed_from_proto(message: sealed_pb2.Sealed) -> SealedBytes:
    """Map an envelope; the body stays the bytes that were carried."""
    return SealedBytes(
        media_type=message.media_type,
        body=message.body,
        signatures=tuple(
            Signature(key_id=one.key_id, scheme=one.scheme, signature=one.signature, extra=one.extra)
            for one in message.signatures
        ),
    )


def sealed_to_proto(document: SealedBytes) -> sealed_pb2.Sealed:
    """Map an envelope."""
    return sealed_pb2.Sealed(
        media_type=document.media_type,
        body=document.body,
        signatures=[
            sealed_pb2.Signature(key_id=one.key_id, scheme=one.scheme, signature=one.signature, extra=one.extra)
            for one in document.signatures
        ],
    )


def _open(body: bytes, message_type: type[M]) -> M:
    try:
        return sealing.open_sealed(body, message_type)
    except sealing.SealingError as error:
        raise RequestMalformedError(
            "MALFORMED", str(error)[:500], "send the sealed document byte for byte as it was made"
        ) from None
