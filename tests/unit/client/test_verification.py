"""An orchestrator that lies to the approver: whatever it swaps or alters, nothing is signed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from client.api import GonogoClient
from client.approving import fetch_verified
from client.errors import EvidenceError
from client.planfile import parse
from client.signing import Signer, read_signing_key
from client.state import StateDirectory
from client.verification import VerifiedMission, require_success, verify_mission
from gonogo import sealing
from gonogo.signatures import ED25519, load_public_key, new_signing_key, verify
from gonogo.v1 import evidence_pb2, orchestrator_pb2, plan_pb2, sealed_pb2
from tests.unit.client.orchestrator_simulator import Simulator

FIRST = b"objective: harmless\nworkspace: site\nsteps: [{write_file: {path: a, content: a}}]"
OTHER = b"objective: harmful\nworkspace: site\nsteps: [{delete_path: {path: a, recursive: true}}]"


@pytest.fixture
async def client(simulator: Simulator, shared_state: StateDirectory) -> AsyncIterator[GonogoClient]:
    """A client with the state's executor key pinned."""
    async with GonogoClient.connect(shared_state) as connected:
        yield connected


async def tried(client: GonogoClient, plan: bytes) -> str:
    """Return a mission that was proposed and dry-run."""
    mission_id = (await client.propose(parse(plan))).mission.mission_id
    await client.dry_run(mission_id)
    return mission_id


async def refused(client: GonogoClient, mission: str) -> EvidenceError:
    """Return why a mission can not be verified."""
    with pytest.raises(EvidenceError) as error:
        await fetch_verified(client, mission)
    assert error.value.remedy
    return error.value


async def test_honest_documents_are_verified(client: GonogoClient, simulator: Simulator) -> None:
    """Plan, report and both digests are those of the bytes that were handed out."""
    mission_id = await tried(client, FIRST)
    verified = await fetch_verified(client, mission_id)
    stored = simulator.missions[mission_id]
    assert isinstance(verified, VerifiedMission)
    assert verified.plan.objective == "harmless"
    assert (verified.plan_digest, verified.report_digest) == (stored.mission.plan_digest, stored.mission.report_digest)


async def test_a_swapped_plan_is_found(client: GonogoClient, simulator: Simulator) -> None:
    """The report names the plan it was made from; another mission's plan is not it."""
    mission_id, other = await tried(client, FIRST), await tried(client, OTHER)
    simulator.lie_plan_of = other
    assert (await refused(client, mission_id)).reason == "PLAN_MISMATCH"


async def test_a_swapped_plan_and_report_are_found(client: GonogoClient, simulator: Simulator) -> None:
    """A whole other mission under the name of this one is not this one."""
    mission_id, other = await tried(client, FIRST), await tried(client, OTHER)
    simulator.lie_plan_of = simulator.lie_report_of = other
    assert (await refused(client, mission_id)).reason == "MISSION_MISMATCH"


async def test_another_mission_than_the_one_asked_for_is_found(client: GonogoClient, simulator: Simulator) -> None:
    """The beginning of an id must be the beginning of what is handed out."""
    mission_id, other = await tried(client, FIRST), await tried(client, OTHER)
    simulator.missions[mission_id] = simulator.missions[other]
    del simulator.missions[other]
    assert (await refused(client, mission_id)).reason == "MISSION_MISMATCH"


async def test_a_whole_id_is_not_taken_for_the_beginning_of_another(
    client: GonogoClient, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An orchestrator that proposes a mission under a stretched id gets no signature for it."""
    mission_id = await tried(client, FIRST)
    honest = await client.get(mission_id)
    stretched = orchestrator_pb2.GetMissionResponse()
    stretched.CopyFrom(honest)
    stretched.mission.mission_id = mission_id + "0"

    async def lie(_: str) -> orchestrator_pb2.GetMissionResponse:
        return stretched

    monkeypatch.setattr(client, "get", lie)
    with pytest.raises(EvidenceError, match="was handed mission"):
        await fetch_verified(client, mission_id)


async def test_an_altered_plan_is_found(client: GonogoClient, simulator: Simulator) -> None:
    """One changed character in the plan is another plan."""
    mission_id = await tried(client, FIRST)
    plan = simulator.missions[mission_id].plan
    plan.body = plan.body.replace(b"harmless", b"harmles5")
    assert (await refused(client, mission_id)).reason == "PLAN_MISMATCH"


async def test_an_altered_report_is_found(client: GonogoClient, simulator: Simulator) -> None:
    """One changed character in the report breaks its signature."""
    mission_id = await tried(client, FIRST)
    report = simulator.missions[mission_id].report
    assert report is not None
    report.body = report.body.replace(b'"level":"RISK_LEVEL_LOW"', b'"level":"RISK_LEVEL_HIGH"')
    assert (await refused(client, mission_id)).reason == "SIGNATURE_INVALID"


async def test_extra_bytes_beside_a_signature_are_found(client: GonogoClient, simulator: Simulator) -> None:
    """What the scheme has no use for is not signed by anybody, so a signature with it is none."""
    mission_id = await tried(client, FIRST)
    report = simulator.missions[mission_id].report
    assert report is not None
    report.signatures[0].extra = b"anything"
    assert (await refused(client, mission_id)).reason == "SIGNATURE_INVALID"


async def test_a_report_by_another_key_is_found(client: GonogoClient, simulator: Simulator) -> None:
    """Only the pinned key counts, whoever signed, and however well."""
    simulator.executor_key = new_signing_key()
    mission_id = await tried(client, FIRST)
    error = await refused(client, mission_id)
    assert error.reason == "SIGNATURE_INVALID"
    assert simulator.executor_key.public.key_id in error.message


async def test_an_unsigned_report_is_found(client: GonogoClient, simulator: Simulator) -> None:
    """A report without a signature is by nobody."""
    mission_id = await tried(client, FIRST)
    report = simulator.missions[mission_id].report
    assert report is not None
    del report.signatures[:]
    assert (await refused(client, mission_id)).message.endswith("but by nobody")


async def test_a_receipt_in_place_of_the_report_is_found(client: GonogoClient, simulator: Simulator) -> None:
    """The media type is part of what is signed."""
    mission_id = await tried(client, FIRST)
    report = simulator.missions[mission_id].report
    assert report is not None
    report.media_type = sealing.RECEIPT
    assert (await refused(client, mission_id)).reason == "MALFORMED"


async def test_a_report_with_a_text_of_its_own_is_found(client: GonogoClient, simulator: Simulator) -> None:
    """A signed text that is not the one text of a report is not read."""
    mission_id = await tried(client, FIRST)
    stored = simulator.missions[mission_id]
    assert stored.report is not None
    stored.report = simulator._signed(sealing.REPORT, stored.report.body.replace(b'"nonce"', b' "nonce"', 1) + b" {}")
    assert (await refused(client, mission_id)).reason == "MALFORMED"


async def test_without_a_dry_run_there_is_nothing_to_approve(client: GonogoClient) -> None:
    """The remedy is the dry run."""
    mission_id = (await client.propose(parse(FIRST))).mission.mission_id
    error = await refused(client, mission_id)
    assert (error.reason, "dry-run" in error.remedy) == ("REPORT_MISSING", True)


async def test_only_a_success_can_be_approved(client: GonogoClient, simulator: Simulator) -> None:
    """An honest report of a failure is verified, and refused for what it says."""
    simulator.status = evidence_pb2.REPORT_STATUS_UNSAFE
    verified = await fetch_verified(client, await tried(client, FIRST))
    with pytest.raises(EvidenceError, match="the dry run is unsafe: it does not apply") as error:
        require_success(verified)
    assert error.value.reason == "SIMULATION_UNSAFE"


def test_a_report_that_skips_a_step_is_found(shared_state: StateDirectory) -> None:
    """Every step of the plan must stand in the report, in order."""
    simulator = Simulator(new_signing_key())
    plan = simulator.ProposeMission(_request(FIRST), None)  # type: ignore[arg-type]  # an honest proposal needs no context
    stored = simulator.missions[plan.mission.mission_id]
    opened = sealing.open_sealed(stored.plan.body, plan_pb2.Plan)
    report = simulator._report(opened, stored.mission.plan_digest)
    del report.steps[:]
    signed = simulator._signed(sealing.REPORT, sealing.seal(report))
    with pytest.raises(EvidenceError, match="does not cover the plan's steps"):
        verify_mission(
            mission_id=plan.mission.mission_id,
            plan=stored.plan,
            report=signed,
            executor_key=simulator.executor_key.public,
        )


async def test_what_is_signed_names_everything_that_was_verified(
    client: GonogoClient, simulator: Simulator, shared_state: StateDirectory
) -> None:
    """The approval carries both digests and all ids, and its signature is the approver's."""
    mission_id = await tried(client, FIRST)
    verified = await fetch_verified(client, mission_id)
    signer = Signer(key=read_signing_key(shared_state.approver_key), person="owner")
    await client.approve(verified, signer, comment="fine")
    (sealed,) = simulator.missions[mission_id].approvals
    approval = sealing.open_sealed(sealed.body, evidence_pb2.Approval)
    assert (approval.mission_id, approval.plan_id, approval.report_id) == (
        mission_id,
        verified.plan.plan_id,
        verified.report.report_id,
    )
    assert (approval.plan_digest, approval.report_digest) == (verified.plan_digest, verified.report_digest)
    assert (approval.approver, approval.comment, len(approval.nonce)) == ("owner", "fine", 32)
    assert approval.not_before.seconds < approval.approved_at.seconds < approval.expires_at.seconds
    check_signature_of(sealed, shared_state.keys / "approver.pub")


def check_signature_of(sealed: sealed_pb2.Sealed, public: Path) -> None:
    """Check a document's one signature; raises where it does not hold."""
    (signature,) = sealed.signatures
    assert signature.scheme != ED25519
    verify(
        load_public_key(public.read_text()),
        scheme=signature.scheme,
        signature=signature.signature,
        media_type=sealed.media_type,
        body=sealed.body,
        extra=b"",
    )


def _request(plan: bytes) -> orchestrator_pb2.ProposeMissionRequest:
    return orchestrator_pb2.ProposeMissionRequest(request_id="q", draft=parse(plan))
