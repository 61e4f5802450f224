"""The whole acceptance as one function, and the rule that no alteration of a good request may break."""

import dataclasses
from pathlib import Path

from google.protobuf.message import DecodeError

from executor.adapters.wire import sealed_to_proto
from executor.domain.errors import ExecutorError
from executor.domain.sealed import SealedBytes
from executor.entrypoints.grpc_messages import execute_input
from executor.runner.requests import ExecuteInput, check_execute
from gonogo import sealing
from gonogo.v1 import executor_pb2
from tests.attacks.target import Target

ORCHESTRATOR = "spiffe://gonogo.local/orchestrator"


class Acceptance:
    """An executor that is asked again and again whether it takes a request; it executes none."""

    def __init__(self, root: Path) -> None:
        self.target = Target(root)
        self.good = self.target.good()
        self.revocation = self.target.revocation(mission="m-elsewhere")
        self.wire = self.message(self.good).SerializeToString()
        assert self.accepts(self.good)

    def close(self) -> None:
        """Stop it."""
        self.target.close()

    def message(self, request: ExecuteInput) -> executor_pb2.ExecuteRequest:
        """The request as it travels."""
        named = request.named
        return executor_pb2.ExecuteRequest(
            request_id=request.request_id,
            mission_id=named.mission_id,
            intent_id=named.intent_id,
            workspace_id=named.workspace_id,
            executor_id=named.executor_id,
            plan=sealed_to_proto(request.plan),
            report=None if request.report is None else sealed_to_proto(request.report),
            approvals=[sealed_to_proto(approval) for approval in request.approvals],
        )

    def accepts(self, request: ExecuteInput) -> bool:
        """Whether the gates 1 to 5 hold; anything but an error of the executor comes out as it is."""
        try:
            check_execute(request)
            self.target.core._executions._gates.check(request)
        except ExecutorError as error:
            fault = error.fault
        else:
            return True
        assert fault.remedy, f"no remedy: {fault.message}"
        assert fault.reason.isupper(), f"no stable reason: {fault.message}"
        assert fault.reason != "INTERNAL", f"something broke: {fault.message}"
        return False

    def check(self, request: ExecuteInput) -> None:
        """Ask, and see that nothing passes but what says exactly what the good request says."""
        if self.accepts(request):
            assert essence(request) == essence(self.good), "an altered request was accepted"

    def check_wire(self, data: bytes) -> None:
        """The same for bytes as they arrive."""
        try:
            message = executor_pb2.ExecuteRequest.FromString(data)
        except DecodeError:
            return
        self.check(execute_input(message, ORCHESTRATOR))

    def check_signed(self, body: bytes) -> None:
        """The same for an approval that bob's own client wrote, whatever that is, and signed."""
        signed = self.target.bob.sign(sealing.APPROVAL, body)
        request = dataclasses.replace(self.good, approvals=(signed,))
        if not self.accepts(request):
            return
        first = self.target.core._executions._restarts.documents.approval(self.good.approvals[0])
        opened = self.target.core._executions._restarts.documents.approval(signed)
        # Words that bind nothing may differ: the comment, the names of the approval, its times within their bounds.
        free = {"approval_id": "", "nonce": "", "comment": "", "approved_at": None, "not_before": None}
        free["expires_at"] = None
        assert dataclasses.replace(opened, **free) == dataclasses.replace(first, **free), "another approval passed"  # type: ignore[arg-type]  # by name


def essence(request: ExecuteInput) -> tuple[object, ...]:
    """What a request says, and nothing of how it is wrapped."""
    report = request.report
    return (
        request.named,
        told(request.plan),
        None if report is None else told(report),
        frozenset(told(approval) for approval in request.approvals),
    )


def told(document: SealedBytes) -> tuple[str, bytes]:
    """What a document is and says."""
    return document.media_type, document.body
