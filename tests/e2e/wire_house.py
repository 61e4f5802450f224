"""Speaking to running services without the command: as a person's client, and as a compromised orchestrator.

`Desk` is what a person uses: the Python client over mutual TLS, with the approver's real key. `Forger` holds the
orchestrator's real certificate and talks to the executor directly: it seals plans of its own, keeps or changes what it
likes, and asks. What it can not do is what the tests are about.
"""

import json
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from client.api import GonogoClient
from client.calls import new_request_id
from client.planfile import parse
from client.signing import Signer, new_id, read_public_key, read_signing_key
from client.state import StateDirectory
from gonogo import sealing
from gonogo.digests import digest
from gonogo.signatures import PublicKey, load_signing_key, verify
from gonogo.v1 import evidence_pb2, executor_pb2, executor_pb2_grpc, orchestrator_pb2, plan_pb2, sealed_pb2
from tests.e2e.installation import Installation, tree_of
from tests.e2e.peer import executor_channel

if TYPE_CHECKING:
    from gonogo.v1.executor_pb2_grpc import ExecutorServiceAsyncStub  # a class of the type stubs only

OWNER = "owner"
WORKSPACE = "site"
HOUR = timedelta(hours=1)
LONGEST = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An error status of the executor, taken apart."""

    code: grpc.StatusCode
    message: str
    info: error_details_pb2.ErrorInfo
    violations: tuple[str, ...]
    fields: tuple[str, ...]
    sealed: sealed_pb2.Sealed | None

    @property
    def reason(self) -> str:
        return str(self.info.reason)

    @property
    def remedy(self) -> str:
        return str(self.info.metadata["remedy"])

    def refusal(self, key: PublicKey) -> evidence_pb2.Refusal:
        """Return the signed refusal, after its only signature has been checked with the executor's key."""
        assert self.sealed is not None
        assert self.sealed.media_type == sealing.REFUSAL
        [signature] = self.sealed.signatures
        assert signature.key_id == key.key_id
        verify(
            key,
            scheme=signature.scheme,
            signature=signature.signature,
            media_type=self.sealed.media_type,
            body=self.sealed.body,
            extra=b"",
        )
        return sealing.open_sealed(self.sealed.body, evidence_pb2.Refusal)


def refused_from(error: grpc.aio.AioRpcError) -> Refused:
    """Take an error status apart; one without gonogo's details is a fault of its own."""
    status = rpc_status.from_call(error)
    assert status is not None, error
    info, sealed = error_details_pb2.ErrorInfo(), None
    violations: list[str] = []
    fields: list[str] = []
    for detail in status.details:
        precondition, request = error_details_pb2.PreconditionFailure(), error_details_pb2.BadRequest()
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Unpack(precondition):
            violations += [violation.type for violation in precondition.violations]
        elif detail.Unpack(request):
            fields += [violation.reason for violation in request.field_violations]
        elif detail.Is(sealed_pb2.Sealed.DESCRIPTOR):
            sealed = sealed_pb2.Sealed()
            detail.Unpack(sealed)
    return Refused(
        code=error.code(),
        message=error.details() or "",
        info=info,
        violations=tuple(violations),
        fields=tuple(fields),
        sealed=sealed,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A person at work: the client, and the key they approve with."""

    client: GonogoClient
    signer: Signer

    async def propose(self, plan: str) -> orchestrator_pb2.ProposeMissionResponse:
        """Propose a plan file's text."""
        return await self.client.propose(parse(plan.encode()))

    async def reported(self, plan: str) -> tuple[str, evidence_pb2.Report]:
        """Propose and dry-run; return the mission and what was found."""
        proposed = await self.propose(plan)
        tried = await self.client.dry_run(proposed.mission.mission_id)
        return proposed.mission.mission_id, sealing.open_sealed(tried.report.body, evidence_pb2.Report)

    async def approved(self, plan: str, *, lifetime: timedelta = HOUR) -> str:
        """Take a plan to an approved mission; return its id."""
        proposed = await self.propose(plan)
        tried = await self.client.dry_run(proposed.mission.mission_id)
        verified = self.client.verified(proposed, tried)
        await self.client.approve(verified, self.signer, lifetime=lifetime)
        return proposed.mission.mission_id

    async def execute(
        self, mission_id: str, *, request_id: str | None = None
    ) -> orchestrator_pb2.ExecuteMissionResponse:
        """Execute and return the last message, which has mission and receipt."""
        last = orchestrator_pb2.ExecuteMissionResponse()
        async for message in self.client.execute(mission_id, request_id=request_id):
            last = message
        return last

    async def receipt(self, mission_id: str) -> evidence_pb2.Receipt:
        """Execute and return the receipt."""
        last = await self.execute(mission_id)
        return sealing.open_sealed(last.receipt.body, evidence_pb2.Receipt)


@asynccontextmanager
async def desk(state: Path) -> AsyncIterator[Desk]:
    """Open a desk on a state directory whose services run."""
    signer = Signer(key=read_signing_key(state / "keys" / "approver"), person=OWNER)
    async with GonogoClient.connect(StateDirectory(root=state)) as client:
        yield Desk(client=client, signer=signer)


class Forger:
    """A compromised orchestrator at the executor's door."""

    def __init__(self, state: Path, stub: "ExecutorServiceAsyncStub", card: executor_pb2.GetExecutorResponse) -> None:
        self.stub = stub
        self.executor_id = card.executor_id
        self.policy_digest = card.policy_digest
        self.executor_key = read_public_key(state / "keys" / "executor.pub")
        self.owner = load_signing_key((state / "keys" / "approver").read_bytes())

    def plan(self, *steps: plan_pb2.Step, **changes: object) -> plan_pb2.Plan:
        """Return an honest plan of a mission of its own, with some of it changed."""
        mission = new_id("m")
        now = plan_pb2.Plan().created_at
        now.FromDatetime(datetime.now(UTC))
        values: dict[str, object] = {
            "plan_id": new_id("p"),
            "mission_id": mission,
            "intent_id": new_id("i"),
            "objective": "change the workspace",
            "workspace_id": WORKSPACE,
            "executor_id": self.executor_id,
            "proposer": OWNER,
            "created_at": now,
            "scope": plan_pb2.Scope(network=plan_pb2.NETWORK_ACCESS_NONE, max_pages=1, max_duration_seconds=30),
            "failure_policy": plan_pb2.FAILURE_POLICY_ROLL_BACK,
            "steps": [*steps],
            **changes,
        }
        return plan_pb2.Plan(**values)  # type: ignore[arg-type]  # a forger may write anything

    def sealed(self, plan: plan_pb2.Plan) -> sealed_pb2.Sealed:
        """Seal a plan."""
        return sealed_pb2.Sealed(media_type=sealing.PLAN, body=sealing.seal(plan))

    async def dry_run(self, plan: sealed_pb2.Sealed) -> sealed_pb2.Sealed:
        """Have the executor dry-run a plan; return the sealed report."""
        report = sealed_pb2.Sealed()
        request = executor_pb2.DryRunRequest(request_id=new_request_id(), plan=plan)
        async for message in self.stub.DryRun(request, timeout=LONGEST):
            if message.HasField("report"):
                report = message.report
        return report

    def approval(self, plan: sealed_pb2.Sealed, report: sealed_pb2.Sealed, **changes: object) -> evidence_pb2.Approval:
        """Return what the owner's honest client would sign, with some of it changed."""
        told = sealing.open_sealed(report.body, evidence_pb2.Report)
        approval = evidence_pb2.Approval()
        now = datetime.now(UTC)
        approval.approved_at.FromDatetime(now)
        approval.not_before.FromDatetime(now - timedelta(seconds=60))
        approval.expires_at.FromDatetime(now + HOUR)
        values: dict[str, object] = {
            "approval_id": new_id("a"),
            "mission_id": told.mission_id,
            "intent_id": told.intent_id,
            "plan_id": told.plan_id,
            "plan_digest": digest(plan.body),
            "report_id": told.report_id,
            "report_digest": digest(report.body),
            "executor_id": told.executor_id,
            "workspace_id": told.workspace_id,
            "approver": OWNER,
            "decision": evidence_pb2.DECISION_APPROVE,
            "nonce": new_request_id(),
            "policy_digest": told.policy_digest,
            **{key: value for key, value in changes.items() if not isinstance(value, datetime)},
        }
        approval.MergeFrom(evidence_pb2.Approval(**values))  # type: ignore[arg-type]  # a forger may write anything
        for key, value in changes.items():
            if isinstance(value, datetime):
                getattr(approval, key).FromDatetime(value)
        return approval

    async def ready(self, *steps: plan_pb2.Step, **changes: object) -> executor_pb2.ExecuteRequest:
        """Return a request that every gate lets pass."""
        return await self.approved(self.sealed(self.plan(*steps, **changes)))

    async def approved(self, plan: sealed_pb2.Sealed) -> executor_pb2.ExecuteRequest:
        """Dry-run a plan, have the owner approve it, and return the honest request."""
        report = await self.dry_run(plan)
        told = sealing.open_sealed(report.body, evidence_pb2.Report)
        assert told.status == evidence_pb2.REPORT_STATUS_SUCCESS, told.problems
        return self.request(plan, report, signed(self.owner, self.approval(plan, report)))

    def request(
        self,
        plan: sealed_pb2.Sealed,
        report: sealed_pb2.Sealed | None,
        *approvals: sealed_pb2.Sealed,
        named: Mapping[str, str] | None = None,
    ) -> executor_pb2.ExecuteRequest:
        """Return the request that an honest orchestrator makes of these documents, with some ids changed."""
        told = sealing.open_sealed(plan.body, plan_pb2.Plan)
        ids = {
            "mission_id": told.mission_id,
            "intent_id": told.intent_id,
            "workspace_id": told.workspace_id,
            "executor_id": told.executor_id,
            **(named or {}),
        }
        return executor_pb2.ExecuteRequest(
            request_id=new_request_id(), plan=plan, report=report, approvals=approvals, **ids
        )

    async def execute(self, request: executor_pb2.ExecuteRequest) -> evidence_pb2.Receipt:
        """Execute to the end; return the receipt."""
        receipt = sealed_pb2.Sealed()
        async for message in self.stub.Execute(request, timeout=LONGEST):
            if message.HasField("receipt"):
                receipt = message.receipt
        return sealing.open_sealed(receipt.body, evidence_pb2.Receipt)

    async def refused(self, request: executor_pb2.ExecuteRequest) -> Refused:
        """Ask for an execution that must be refused."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.execute(request)
        return refused_from(caught.value)


@asynccontextmanager
async def forger(state: Path) -> AsyncIterator[Forger]:
    """Open a way to the executor of a state directory, with the orchestrator's certificate."""
    async with executor_channel(state) as channel:
        stub: ExecutorServiceAsyncStub = executor_pb2_grpc.ExecutorServiceStub(channel)
        card = await stub.GetExecutor(executor_pb2.GetExecutorRequest())
        yield Forger(state, stub, card)


def channel_to(
    state: Path, *, identity: str = "orchestrator", service: str = "executor", certificates: Path | None = None
) -> grpc.aio.Channel:
    """Open a channel to a service of a state directory with any certificate, perhaps another state directory's."""
    tls = (certificates or state) / "tls"
    credentials = grpc.ssl_channel_credentials(
        root_certificates=(state / "tls" / "ca.pem").read_bytes(),
        private_key=(tls / f"{identity}.key").read_bytes(),
        certificate_chain=(tls / f"{identity}.pem").read_bytes(),
    )
    address = json.loads((state / "run" / f"{service}.json").read_text())["address"]
    return grpc.aio.secure_channel(address, credentials, [("grpc.ssl_target_name_override", service)])


def signed(key: Any, approval: evidence_pb2.Approval, *, scheme: str = "sshsig") -> sealed_pb2.Sealed:
    """Seal and sign an approval."""
    body = sealing.seal(approval)
    signature = sealed_pb2.Signature(
        key_id=key.public.key_id, scheme=scheme, signature=key.sign(scheme, sealing.APPROVAL, body)
    )
    return sealed_pb2.Sealed(media_type=sealing.APPROVAL, body=body, signatures=[signature])


def created(path: str, content: str = "hello\n") -> plan_pb2.Step:
    """Return a step that creates a file."""
    return plan_pb2.Step(
        step_id=f"s-{digest(path.encode())[7:19]}",
        stage=plan_pb2.STAGE_EDIT,
        create_file=plan_pb2.CreateFile(path=path, content=content),
    )


def commanded(*argv: str, step_id: str = "run") -> plan_pb2.Step:
    """Return a step that runs a program."""
    return plan_pb2.Step(step_id=step_id, stage=plan_pb2.STAGE_EDIT, run_command=plan_pb2.RunCommand(argv=argv))


def checked(*argv: str, step_id: str = "test") -> plan_pb2.Step:
    """Return a step that runs tests."""
    return plan_pb2.Step(
        step_id=step_id,
        stage=plan_pb2.STAGE_TEST,
        run_tests=plan_pb2.RunTests(argv=argv, expect=plan_pb2.TEST_EXPECTATION_PASS),
    )


def ledger_rows(state: Path, missions: Iterable[str] | None = None) -> int:
    """Return how many executions the executor's ledger holds, of some missions or in all."""
    ledger = sqlite3.connect(f"file:{state}/executor/ledger.db?mode=ro", uri=True)
    try:
        rows = {row[0] for row in ledger.execute("select mission_id from executions")}
        (count,) = ledger.execute("select count(*) from executions").fetchone()
    finally:
        ledger.close()
    return int(count) if missions is None else len(rows & set(missions))


@dataclass(frozen=True, slots=True, kw_only=True)
class Untouched:
    """What a workspace and a ledger held before; `check` compares."""

    house: Installation
    trees: Mapping[str, Mapping[str, tuple[Any, ...]]]
    rows: int

    def check(self) -> None:
        """Fail unless all is as it was, byte for byte, mode for mode, time for time."""
        assert {name: tree_of(path) for name, path in self.house.workspaces.items()} == self.trees
        assert ledger_rows(self.house.state) == self.rows


def untouched(house: Installation) -> Untouched:
    """Take note of what is there now."""
    trees = {name: tree_of(path) for name, path in house.workspaces.items()}
    return Untouched(house=house, trees=trees, rows=ledger_rows(house.state))


def plan_of(*steps: dict[str, Any], **more: object) -> str:
    """Return a plan file's text."""
    return json.dumps({"objective": "Try it", "workspace": "site", "steps": list(steps), **more})


def step(kind: str, **fields: object) -> dict[str, Any]:
    """Return a step of a plan file."""
    return {kind: fields}


async def works(one: Desk, house: Installation) -> None:
    """Take a mission from proposal to receipt: the services are none the worse for what was asked before."""
    number = len(list(house.workspaces["site"].glob("works-*")))
    receipt = await one.receipt(await one.approved(plan_of(step("create_file", path=f"works-{number}", content=""))))
    assert receipt.execution_status == evidence_pb2.OUTCOME_SUCCESS
