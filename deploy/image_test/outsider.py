"""What a third container tries. Runs inside one, from the executor's image, and prints a JSON object: try → answer.

`outsider.py calls ADDRESS TLS` calls the executor as somebody who must not be able to; TLS holds, besides the
authority's certificate, that of a client and that of the orchestrator, as if it had been stolen.
`outsider.py replay ADDRESS TLS MISSION` asks, with the orchestrator's certificate, for a mission that was executed.
`outsider.py revocation ADDRESS TLS` calls the listener for revocations as somebody who must not be able to.
`outsider.py knocks ADDRESS…` says which of the addresses can be connected to.
"""

import json
import secrets
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from gonogo import sealing
from gonogo.digests import digest
from gonogo.signatures import new_signing_key
from gonogo.v1 import evidence_pb2, executor_pb2, executor_pb2_grpc, plan_pb2, sealed_pb2

SECONDS = 20.0
ORCHESTRATOR = "spiffe://gonogo.local/orchestrator"
CHANNEL_OPTIONS = [("grpc.ssl_target_name_override", "executor")]


def main(arguments: list[str]) -> int:
    """Try, and print the answers."""
    match arguments:
        case ["calls", address, tls]:
            tried = calls(address, Path(tls))
        case ["replay", address, tls, mission]:
            tried = {"replay": replay(address, Path(tls), mission)}
        case ["revocation", address, tls]:
            tried = revocation(address, Path(tls))
        case ["knocks", *addresses]:
            tried = {address: knock(address) for address in addresses}
        case _:
            return 2
    sys.stdout.write(json.dumps(tried) + "\n")
    return 0


def knock(address: str) -> str:
    """Return "open", or why it is not."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except OSError as error:
        return type(error).__name__ + f" {error.strerror or ''}".rstrip()
    return "open"


def calls(address: str, tls: Path) -> dict[str, str]:
    """Call with every kind of wrong identity, then with the right one and nobody's approval."""
    authority = (tls / "ca.pem").read_bytes()
    forged = own_authority()
    stolen = secured(address, authority, of(tls, "orchestrator"))
    return {
        "plaintext": answer(lambda: who(grpc.insecure_channel(address))),
        "no certificate": answer(lambda: who(secured(address, authority, (None, None)))),
        "orchestrator's name, another authority": answer(lambda: who(secured(address, authority, forged))),
        "a client's certificate": answer(lambda: who(secured(address, authority, of(tls, "client")))),
        "orchestrator's certificate, no approval": answer(lambda: execute(stolen, approved=False)),
        "orchestrator's certificate, own approval": answer(lambda: execute(stolen, approved=True)),
    }


def replay(address: str, tls: Path, mission_id: str) -> str:
    """Ask for a mission again."""
    channel = secured(address, (tls / "ca.pem").read_bytes(), of(tls, "orchestrator"))
    stub = executor_pb2_grpc.ExecutorServiceStub(channel)
    card = stub.GetExecutor(executor_pb2.GetExecutorRequest(), timeout=SECONDS)
    plan = own_plan(card.executor_id)
    plan.mission_id = mission_id
    sealed = sealed_pb2.Sealed(media_type=sealing.PLAN, body=sealing.seal(plan))
    return answer(lambda: list(stub.Execute(asked_for(plan, sealed), timeout=SECONDS)))


def revocation(address: str, tls: Path) -> dict[str, str]:
    """Call with no identity, with one that is not a client's, and a client's for what is not served here."""
    authority = (tls / "ca.pem").read_bytes()
    stolen = secured(address, authority, of(tls, "orchestrator"))
    return {
        "no certificate": answer(lambda: revoke(secured(address, authority, (None, None)))),
        "orchestrator's certificate": answer(lambda: revoke(stolen)),
        "a revocation that nobody signed": answer(lambda: revoke(secured(address, authority, of(tls, "client")))),
        "another service": answer(lambda: who(secured(address, authority, of(tls, "client")))),
    }


def revoke(channel: grpc.Channel) -> object:
    """Hand in an empty revocation."""
    asked = executor_pb2.RevokeRequest(revocation=sealed_pb2.Sealed(media_type=sealing.REVOCATION, body=b"{}"))
    return executor_pb2_grpc.RevocationServiceStub(channel).Revoke(asked, timeout=SECONDS)


def answer(call: Callable[[], object]) -> str:
    """Return how a call was answered: its status and gonogo's reason, or "done"."""
    try:
        call()
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        info = error_details_pb2.ErrorInfo()
        found = [detail for detail in status.details if detail.Unpack(info)] if status else []
        return (
            f"{error.code().name} {info.reason}: {error.details()}"
            if found
            else f"{error.code().name}: {error.details()}"
        )
    return "done"


def who(channel: grpc.Channel) -> object:
    """Ask who the executor is."""
    return executor_pb2_grpc.ExecutorServiceStub(channel).GetExecutor(
        executor_pb2.GetExecutorRequest(), timeout=SECONDS
    )


def execute(channel: grpc.Channel, *, approved: bool) -> None:
    """Have an own plan tried, and ask for its execution, with an approval that nobody trusted signed, or none."""
    stub = executor_pb2_grpc.ExecutorServiceStub(channel)
    card = stub.GetExecutor(executor_pb2.GetExecutorRequest(), timeout=SECONDS)
    plan = own_plan(card.executor_id)
    sealed = sealed_pb2.Sealed(media_type=sealing.PLAN, body=sealing.seal(plan))
    asked = executor_pb2.DryRunRequest(request_id=name("q"), plan=sealed)
    reports = [one.report for one in stub.DryRun(asked, timeout=SECONDS) if one.HasField("report")]
    request = asked_for(plan, sealed)
    request.report.CopyFrom(reports[0])
    if approved:
        request.approvals.append(own_approval(sealed, reports[0], card.policy_digest))
    list(stub.Execute(request, timeout=SECONDS))


def asked_for(plan: plan_pb2.Plan, sealed: sealed_pb2.Sealed) -> executor_pb2.ExecuteRequest:
    """Return a request to execute a plan."""
    return executor_pb2.ExecuteRequest(
        request_id=name("q"),
        mission_id=plan.mission_id,
        intent_id=plan.intent_id,
        workspace_id=plan.workspace_id,
        executor_id=plan.executor_id,
        plan=sealed,
    )


def own_plan(executor_id: str) -> plan_pb2.Plan:
    """Return a plan that would be seen in the workspace."""
    step = plan_pb2.Step(step_id="s-1", stage=plan_pb2.STAGE_EDIT, description="write a file")
    step.create_file.path, step.create_file.content = "forged.txt", "forged\n"
    plan = plan_pb2.Plan(
        plan_id=name("p"),
        mission_id=name("m"),
        intent_id=name("i"),
        objective="write what nobody approved",
        workspace_id="site",
        executor_id=executor_id,
        proposer="owner",
        scope=plan_pb2.Scope(network=plan_pb2.NETWORK_ACCESS_NONE, max_pages=1, max_duration_seconds=30),
        failure_policy=plan_pb2.FAILURE_POLICY_ROLL_BACK,
        steps=[step],
    )
    plan.created_at.FromDatetime(datetime.now(UTC))
    return plan


def own_approval(plan: sealed_pb2.Sealed, report: sealed_pb2.Sealed, policy_digest: str) -> sealed_pb2.Sealed:
    """Return an approval in the owner's name, signed with a key made here."""
    told = sealing.open_sealed(report.body, evidence_pb2.Report)
    key, now = new_signing_key(), datetime.now(UTC)
    approval = evidence_pb2.Approval(
        approval_id=name("a"),
        mission_id=told.mission_id,
        intent_id=told.intent_id,
        plan_id=told.plan_id,
        plan_digest=digest(plan.body),
        report_id=told.report_id,
        report_digest=digest(report.body),
        executor_id=told.executor_id,
        workspace_id=told.workspace_id,
        approver="owner",
        decision=evidence_pb2.DECISION_APPROVE,
        nonce=secrets.token_hex(16),
        policy_digest=policy_digest,
    )
    approval.approved_at.FromDatetime(now)
    approval.not_before.FromDatetime(now - timedelta(minutes=1))
    approval.expires_at.FromDatetime(now + timedelta(hours=1))
    body = sealing.seal(approval)
    signature = key.sign("sshsig", sealing.APPROVAL, body)
    signed = sealed_pb2.Signature(key_id=key.public.key_id, scheme="sshsig", signature=signature)
    return sealed_pb2.Sealed(media_type=sealing.APPROVAL, body=body, signatures=[signed])


def own_authority() -> tuple[bytes, bytes]:
    """Return a key and a certificate that names the orchestrator, signed by itself."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "orchestrator")])
    certificate = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=subject, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(ORCHESTRATOR)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(serialization.Encoding.PEM, *form), certificate.public_bytes(serialization.Encoding.PEM)


def secured(address: str, authority: bytes, identity: tuple[bytes | None, bytes | None]) -> grpc.Channel:
    """Open a channel with an identity: key and certificate."""
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(authority, *identity), CHANNEL_OPTIONS)


def of(tls: Path, role: str) -> tuple[bytes, bytes]:
    """Read an identity."""
    return (tls / f"{role}.key").read_bytes(), (tls / f"{role}.pem").read_bytes()


def name(kind: str) -> str:
    """Return a new id."""
    return f"{kind}-{secrets.token_hex(10)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
