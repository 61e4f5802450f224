"""Each of the seven gates refuses on its own, over the wire, whoever asks.

The one who asks is a compromised orchestrator: it holds the orchestrator's real certificate and every document that an
honest one would hold. Whatever it leaves out, swaps or forges, the executor's answer is the gate's reason in a document
that the executor signed, the workspace is what it was, and the ledger has no row.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from client.initialise import initialise
from client.state import StateDirectory
from gonogo import sealing
from gonogo.signatures import new_signing_key
from gonogo.v1 import evidence_pb2, executor_pb2, executor_pb2_grpc, orchestrator_pb2, orchestrator_pb2_grpc, sealed_pb2
from tests.e2e.installation import Installation
from tests.e2e.wire_house import (
    Forger,
    Refused,
    channel_to,
    checked,
    commanded,
    created,
    forger,
    ledger_rows,
    signed,
    untouched,
)

Request = executor_pb2.ExecuteRequest
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
EXISTS = grpc.StatusCode.ALREADY_EXISTS


@pytest.fixture
async def bad(house: Installation) -> AsyncIterator[Forger]:
    """The compromised orchestrator."""
    async with forger(house.state) as one:
        yield one


def check(refused: Refused, bad: Forger, gate: int, reason: str) -> evidence_pb2.Refusal:
    """Compare a refusal with what a gate must say, in the status and in the signed document alike."""
    assert (refused.reason, refused.info.domain) == (reason, "gonogo")
    assert refused.code is (EXISTS if gate in {0, 7} else PRECONDITION)
    assert refused.violations == (reason,)
    assert refused.remedy
    refusal = refused.refusal(bad.executor_key)
    assert (refusal.gate, refusal.abort_reason, refusal.executor_id) == (gate, reason, bad.executor_id)
    assert refusal.remedy
    return refusal


# What a forger does to an honest request, by name: the gate and the reason that must answer.
Forgery = Callable[[Forger, Request], Awaitable[None]]


async def no_report(_: Forger, request: Request) -> None:
    request.ClearField("report")


async def empty_report(_: Forger, request: Request) -> None:
    request.report.body = b""


async def made_up_report(_: Forger, request: Request) -> None:
    report = sealing.open_sealed(request.report.body, evidence_pb2.Report)
    report.after_fingerprint = report.base_fingerprint
    request.report.body = sealing.seal(report)


async def no_approval(_: Forger, request: Request) -> None:
    del request.approvals[:]


async def denied(bad: Forger, request: Request) -> None:
    resign(bad, request, decision=evidence_pb2.DECISION_DENY)


async def denied_beside_approved(bad: Forger, request: Request) -> None:
    denial = bad.approval(request.plan, request.report, decision=evidence_pb2.DECISION_DENY)
    request.approvals.append(signed(bad.owner, denial))


async def expired(bad: Forger, request: Request) -> None:
    now = datetime.now(UTC)
    hours = [now - timedelta(hours=hours) for hours in (3, 3, 1)]
    resign(bad, request, approved_at=hours[0], not_before=hours[1], expires_at=hours[2])


async def older_than_the_policy_allows(bad: Forger, request: Request) -> None:
    start = datetime.now(UTC) - timedelta(days=2)
    resign(bad, request, approved_at=start, not_before=start, expires_at=start + timedelta(days=365))


async def not_yet_valid(bad: Forger, request: Request) -> None:
    resign(bad, request, not_before=datetime.now(UTC) + timedelta(minutes=30))


async def of_another_report(bad: Forger, request: Request) -> None:
    resign(bad, request, report_id="r-another")


async def under_another_policy(bad: Forger, request: Request) -> None:
    resign(bad, request, policy_digest="sha256:" + "0" * 64)


async def changed_after_signing(bad: Forger, request: Request) -> None:
    approval = sealing.open_sealed(request.approvals[0].body, evidence_pb2.Approval)
    approval.expires_at.FromDatetime(datetime.now(UTC) + timedelta(hours=5))
    request.approvals[0].body = sealing.seal(approval)


async def signature_of_zeros(_: Forger, request: Request) -> None:
    signature = request.approvals[0].signatures[0]
    signature.signature = bytes(len(signature.signature))


async def without_signature(_: Forger, request: Request) -> None:
    del request.approvals[0].signatures[:]


async def under_another_scheme(bad: Forger, request: Request) -> None:
    approval = sealing.open_sealed(request.approvals[0].body, evidence_pb2.Approval)
    request.approvals[0].CopyFrom(signed(bad.owner, approval, scheme="ed25519"))


async def in_anothers_name(bad: Forger, request: Request) -> None:
    resign(bad, request, approver="somebody")


async def by_an_unknown_key(bad: Forger, request: Request) -> None:
    approval = sealing.open_sealed(request.approvals[0].body, evidence_pb2.Approval)
    request.approvals[0].CopyFrom(signed(new_signing_key(), approval))


async def by_the_executors_own_key_id(bad: Forger, request: Request) -> None:
    request.approvals[0].signatures[0].key_id = bad.executor_key.key_id


async def swapped_plan(bad: Forger, request: Request) -> None:
    plan = sealing.open_sealed(request.plan.body, type(bad.plan()))
    plan.steps[0].create_file.content = "something else\n"
    request.plan.body = sealing.seal(plan)


async def same_plan_in_other_bytes(_: Forger, request: Request) -> None:
    request.plan.body = request.plan.body.replace(b'":"', b'": "')


async def approval_of_another_plan(bad: Forger, request: Request) -> None:
    resign(bad, request, plan_digest="sha256:" + "1" * 64)


async def approval_of_another_plan_id(bad: Forger, request: Request) -> None:
    resign(bad, request, plan_id="p-another")


async def another_mission(_: Forger, request: Request) -> None:
    request.mission_id = "m-another"


async def another_intent(_: Forger, request: Request) -> None:
    request.intent_id = "i-another"


async def approval_of_another_mission(bad: Forger, request: Request) -> None:
    resign(bad, request, mission_id="m-another")


async def approval_of_another_intent(bad: Forger, request: Request) -> None:
    resign(bad, request, intent_id="i-another")


async def another_workspace(_: Forger, request: Request) -> None:
    request.workspace_id = "elsewhere"


async def approval_of_another_workspace(bad: Forger, request: Request) -> None:
    resign(bad, request, workspace_id="elsewhere")


async def another_executor(_: Forger, request: Request) -> None:
    request.executor_id = "executor-elsewhere"


async def approval_of_another_executor(bad: Forger, request: Request) -> None:
    resign(bad, request, executor_id="executor-elsewhere")


FORGERIES: list[tuple[Forgery, int, str]] = [
    (no_report, 1, "REPORT_MISSING"),
    (empty_report, 1, "REPORT_MISSING"),
    (made_up_report, 1, "REPORT_UNKNOWN"),
    (no_approval, 3, "NOT_APPROVED"),
    (not_yet_valid, 3, "NOT_APPROVED"),
    (of_another_report, 3, "NOT_APPROVED"),
    (under_another_policy, 3, "NOT_APPROVED"),
    (expired, 3, "APPROVAL_EXPIRED"),
    (older_than_the_policy_allows, 3, "APPROVAL_EXPIRED"),
    (changed_after_signing, 3, "SIGNATURE_INVALID"),
    (signature_of_zeros, 3, "SIGNATURE_INVALID"),
    (without_signature, 3, "SIGNATURE_INVALID"),
    (in_anothers_name, 3, "SIGNATURE_INVALID"),
    (under_another_scheme, 3, "SIGNATURE_INVALID"),
    (by_an_unknown_key, 3, "APPROVER_UNKNOWN"),
    (by_the_executors_own_key_id, 3, "APPROVER_UNKNOWN"),
    (swapped_plan, 4, "PLAN_MISMATCH"),
    (same_plan_in_other_bytes, 4, "PLAN_MISMATCH"),
    (approval_of_another_plan, 4, "PLAN_MISMATCH"),
    (approval_of_another_plan_id, 4, "PLAN_MISMATCH"),
    (another_mission, 5, "MISSION_MISMATCH"),
    (another_intent, 5, "MISSION_MISMATCH"),
    (approval_of_another_mission, 5, "MISSION_MISMATCH"),
    (approval_of_another_intent, 5, "MISSION_MISMATCH"),
    (another_workspace, 5, "WORKSPACE_MISMATCH"),
    (approval_of_another_workspace, 5, "WORKSPACE_MISMATCH"),
    (another_executor, 5, "EXECUTOR_MISMATCH"),
    (approval_of_another_executor, 5, "EXECUTOR_MISMATCH"),
]


def resign(bad: Forger, request: Request, **changes: object) -> None:
    """Put another approval in place, one that the owner really signed, however it came to that."""
    approval = bad.approval(request.plan, request.report, **changes)
    request.approvals[0].CopyFrom(signed(bad.owner, approval))


@pytest.mark.parametrize(
    ("forge", "gate", "reason"), FORGERIES, ids=[forge.__name__.replace("_", "-") for forge, _, _ in FORGERIES]
)
async def test_a_forged_request_is_refused_by_its_gate_and_uses_nothing_up(
    house: Installation, bad: Forger, forge: Forgery, gate: int, reason: str
) -> None:
    """The gate names its reason, nothing changed, and the honest request of the same mission still goes through."""
    name = f"{forge.__name__}.txt"
    honest = await bad.ready(created(name))
    request = Request()
    request.CopyFrom(honest)
    request.request_id += "-forged"
    await forge(bad, request)
    before = untouched(house)
    refused = await bad.refused(request)
    check(refused, bad, gate, reason)
    before.check()
    receipt = await bad.execute(honest)
    assert receipt.execution_status == evidence_pb2.OUTCOME_SUCCESS
    assert (house.workspaces["site"] / name).read_text() == "hello\n"


@pytest.mark.parametrize("deny", [denied, denied_beside_approved], ids=["alone", "beside an approval"])
async def test_a_denial_that_arrives_is_final(house: Installation, bad: Forger, deny: Forgery) -> None:
    """Nothing changed, and the honest request without it is refused from then on, too."""
    honest = await bad.ready(created(f"{deny.__name__}.txt"))
    request = Request()
    request.CopyFrom(honest)
    request.request_id += "-denied"
    await deny(bad, request)
    before = untouched(house)
    check(await bad.refused(request), bad, 3, "NOT_APPROVED")
    check(await bad.refused(honest), bad, 3, "NOT_APPROVED")
    before.check()


async def test_the_owners_signature_under_an_approval_that_was_used_for_another_mission_is_refused(
    house: Installation, bad: Forger
) -> None:
    """An approval's nonce is good for one execution."""
    first = await bad.ready(created("nonce-one.txt"))
    nonce = sealing.open_sealed(first.approvals[0].body, evidence_pb2.Approval).nonce
    await bad.execute(first)
    second = await bad.ready(created("nonce-two.txt"))
    resign(bad, second, nonce=nonce)
    before = untouched(house)
    check(await bad.refused(second), bad, 3, "NOT_APPROVED")
    before.check()


SIMULATIONS = [
    (commanded("false"), "SIMULATION_FAILED"),
    (commanded("no-such-program-at-all"), "SIMULATION_BLOCKED"),
    (commanded("mkfifo", "a-pipe"), "SIMULATION_UNSAFE"),
]


@pytest.mark.sandbox
@pytest.mark.parametrize(("step", "reason"), SIMULATIONS, ids=[reason for _, reason in SIMULATIONS])
async def test_a_dry_run_that_was_no_success_is_refused_although_it_is_approved(
    house: Installation, bad: Forger, step: object, reason: str
) -> None:
    """Gate 2 judges the executor's own report; a signature over it changes nothing."""
    plan = bad.sealed(bad.plan(step))  # type: ignore[arg-type]  # the table's steps
    before = untouched(house)
    report = await bad.dry_run(plan)
    request = bad.request(plan, report, signed(bad.owner, bad.approval(plan, report)))
    check(await bad.refused(request), bad, 2, reason)
    before.check()


async def test_a_drifted_workspace_is_refused_with_the_paths_that_differ(house: Installation, bad: Forger) -> None:
    """Gate 6 names the paths; put back as it was, content and all, the mission goes through."""
    request = await bad.ready(created("drifted.txt"))
    there = house.workspaces["site"] / "drifted.txt"
    there.write_text("somebody was here\n")
    before = untouched(house)
    refusal = check(await bad.refused(request), bad, 6, "BASE_DRIFTED")
    assert (list(refusal.paths), refusal.path_count) == (["drifted.txt"], 1)
    before.check()
    there.unlink()
    request.request_id += "-again"
    assert (await bad.execute(request)).execution_status == evidence_pb2.OUTCOME_SUCCESS


async def test_an_executed_mission_is_answered_before_all_gates(house: Installation, bad: Forger) -> None:
    """Whatever else is wrong with the second request, the ledger answers first, and says so in the design's words."""
    request = await bad.ready(created("executed.txt"))
    await bad.execute(request)
    request.request_id += "-second"
    before = untouched(house)
    refused = await bad.refused(request)
    check(refused, bad, 0, "ALREADY_EXECUTED")
    assert refused.message == "Mission has already been executed"
    request.ClearField("report")
    del request.approvals[:]
    request.request_id += "-third"
    check(await bad.refused(request), bad, 0, "ALREADY_EXECUTED")
    before.check()


async def test_the_same_request_id_attaches_to_the_execution_and_starts_none(house: Installation, bad: Forger) -> None:
    """A repeated request gets the same receipt; another body under that id is refused as malformed."""
    request = await bad.ready(created("attached.txt"))
    first = await bad.execute(request)
    again = await bad.execute(request)
    assert again == first
    other = await bad.ready(created("attached-other.txt"))
    other.request_id = request.request_id
    before = untouched(house)
    refused = await bad.refused(other)
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_REUSED")
    assert refused.refusal(bad.executor_key).abort_reason == "REQUEST_REUSED"
    before.check()


@pytest.mark.sandbox
async def test_a_mission_that_is_being_executed_is_answered_as_claimed(house: Installation, bad: Forger) -> None:
    """While the first execution runs, a second one is refused; there is one row and one receipt."""
    request = await bad.ready(created("claimed.txt"), checked("sleep", "1"))
    running = asyncio.create_task(bad.execute(request))
    while not ledger_rows(house.state, [request.mission_id]):  # noqa: ASYNC110 - the ledger is what is waited for
        await asyncio.sleep(0.02)
    second = Request()
    second.CopyFrom(request)
    second.request_id += "-second"
    check(await bad.refused(second), bad, 0, "ALREADY_CLAIMED")
    assert (await running).execution_status == evidence_pb2.OUTCOME_SUCCESS
    assert ledger_rows(house.state, [request.mission_id]) == 1


async def test_two_requests_at_once_for_one_mission_have_one_winner(house: Installation, bad: Forger) -> None:
    """Of twenty requests with ids of their own, one is executed and nineteen hear that it is taken."""
    honest = await bad.ready(created("contended.txt"))
    requests = [Request() for _ in range(20)]
    for number, request in enumerate(requests):
        request.CopyFrom(honest)
        request.request_id = f"{honest.request_id}-{number}"
    ended = await asyncio.gather(*(bad.execute(request) for request in requests), return_exceptions=True)
    losers = [error for error in ended if isinstance(error, grpc.aio.AioRpcError)]
    assert len(losers) == 19
    assert {error.code() for error in losers} == {EXISTS}
    assert ledger_rows(house.state, [honest.mission_id]) == 1


MALFORMED: list[tuple[str, Callable[[Request], object]]] = [
    ("no request id", lambda request: request.ClearField("request_id")),
    ("no mission", lambda request: request.ClearField("mission_id")),
    ("no plan", lambda request: request.ClearField("plan")),
    ("a plan that claims to be a report", lambda request: setattr(request.plan, "media_type", sealing.REPORT)),
    ("seventeen approvals", lambda request: request.approvals.extend([request.approvals[0]] * 16)),
    (
        "an approval of a megabyte",
        lambda request: request.approvals.append(sealed_pb2.Sealed(media_type=sealing.APPROVAL, body=b" " * (1 << 20))),
    ),
]


@pytest.mark.parametrize("spoil", [spoil for _, spoil in MALFORMED], ids=[name for name, _ in MALFORMED])
async def test_a_request_that_is_not_well_formed_is_refused_with_a_signed_document(
    house: Installation, bad: Forger, spoil: Callable[[Request], object]
) -> None:
    """INVALID_ARGUMENT with reason, remedy and a signed refusal that names no gate."""
    request = await bad.ready(created("malformed.txt"))
    spoil(request)
    before = untouched(house)
    refused = await bad.refused(request)
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.reason in {"MALFORMED", "TOO_LARGE"}
    assert refused.fields == (refused.reason,)
    assert refused.remedy
    assert refused.refusal(bad.executor_key).gate == 0
    before.check()


@pytest.mark.parametrize("identity", ["client", "executor"])
async def test_a_peer_that_is_no_orchestrator_is_refused_at_every_method(house: Installation, identity: str) -> None:
    """A certificate of the same authority is not enough: every call of the executor refuses it."""
    before = untouched(house)
    async with channel_to(house.state, identity=identity) as channel:
        stub = executor_pb2_grpc.ExecutorServiceStub(channel)
        calls = {
            "GetExecutor": executor_pb2.GetExecutorRequest(),
            "DryRun": executor_pb2.DryRunRequest(),
            "Execute": executor_pb2.ExecuteRequest(),
            "WatchExecution": executor_pb2.WatchExecutionRequest(),
            "GetExecution": executor_pb2.GetExecutionRequest(),
            "GetReceipt": executor_pb2.GetReceiptRequest(),
            "GetObject": executor_pb2.GetObjectRequest(),
            "ExchangeCheckpoints": executor_pb2.ExchangeCheckpointsRequest(),
            "GetMissionLog": executor_pb2.GetMissionLogRequest(),
            "ControlExecution": executor_pb2.ControlExecutionRequest(),
            "ListProcesses": executor_pb2.ListProcessesRequest(),
            "StopProcess": executor_pb2.StopProcessRequest(),
        }
        service = executor_pb2.DESCRIPTOR.services_by_name["ExecutorService"]
        assert set(calls) == {method.name for method in service.methods}
        for name, message in calls.items():
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await answered(getattr(stub, name)(message))
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED, name
            assert "PEER_NOT_ALLOWED" in str(caught.value.trailing_metadata())
    before.check()


async def answered(call: object) -> None:
    """Wait for a call of either kind."""
    if isinstance(call, grpc.aio.UnaryStreamCall):
        async for _ in call:
            pass
    else:
        await call  # type: ignore[misc]  # the other kind is awaited


async def test_a_certificate_of_a_foreign_authority_opens_no_connection(house: Installation, tmp_path: Path) -> None:
    """Another installation's orchestrator, with the very same name, does not get as far as a call."""
    foreign = StateDirectory(root=tmp_path / "foreign")
    initialise(foreign)
    async with channel_to(house.state, certificates=foreign.root) as channel:
        stub = executor_pb2_grpc.ExecutorServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetExecutor(executor_pb2.GetExecutorRequest(), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("identity", ["orchestrator", "executor"])
async def test_the_orchestrator_serves_clients_only(house: Installation, identity: str) -> None:
    """Neither the executor nor the orchestrator itself can propose, approve or execute anything there."""
    async with channel_to(house.state, identity=identity, service="orchestrator") as channel:
        stub = orchestrator_pb2_grpc.MissionServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListMissions(orchestrator_pb2.ListMissionsRequest())
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
