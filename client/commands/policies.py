from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from client.bundle import SealedText
from client.commands.arguments import ExecutorKeyOption, MissionArgument, connect, read_input
from client.errors import ClientError, EvidenceError
from client.executor_command import trust_text
from client.explaining import explain as explained
from client.policy_cases import CaseTable, read_cases, run_case
from client.proving.opened import OpenApproval
from client.proving.seals import proven_proposer
from client.render.policies import explanation_text, results_text
from client.session import Session, run, session_of
from client.state import StateDirectory
from client.taken_back import fetch_taken_back
from client.verification import (
    check_media_type,
    check_signature,
    open_document,
    require_asked_for,
    verify_mission,
)
from gonogo import sealing
from gonogo.policy import Policy
from gonogo.policy_document import open_policy
from gonogo.signatures import PublicKey
from gonogo.v1 import evidence_pb2, orchestrator_pb2, sealed_pb2

NO_POLICY = "the executor does not say what its policy is"


def explain(context: typer.Context, mission: MissionArgument, executor_key: ExecutorKeyOption = None) -> None:
    """Say who must approve a mission, who has, who still may, and why."""
    run(_explain(session_of(context), mission, executor_key))


def test(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The table of cases; - reads standard input.")],
) -> None:
    """Run a table of cases against a policy; ends with 1 where one fails.

    The file is YAML: trust (a trust file, left out for the state directory's) and cases, a list of {name, facts:
    {step_kinds, risk, risk_facts, workspace, changes, size, at, proposer: {kind, person, sponsor}}, votes: [person],
    expect: {met, reason, requirements: [{count, group}], rules}}. A fact that is left out is one that is not known.
    """
    session = session_of(context)
    cases = read_cases(_decoded(read_input(file)))
    policy = _trust_policy(session.state, cases, file)
    results = [run_case(case, policy) for case in cases.cases]
    session.output.emit_list([one.as_json() for one in results], lambda: results_text(results))
    failed = [one.case.name for one in results if one.differences]
    if failed:
        message = f"{len(failed)} of {len(results)} cases failed, the first is {failed[0]!r}"
        raise ClientError("CHECK_FAILED", message, "correct the policy, or what the case expects")


async def _explain(session: Session, mission: str, executor_key: Path | None) -> None:
    async with connect(session, executor_key) as client:
        response = await client.get(mission)
        told = await client.executor()
        pinned = client.executor_key
        require_asked_for(mission, response.mission.mission_id)
        verified = verify_mission(
            mission_id=response.mission.mission_id, plan=response.plan, report=response.report, executor_key=pinned
        )
        taken_back = await fetch_taken_back(client, verified.plan)
    if not told.HasField("policy"):
        raise EvidenceError("MALFORMED", NO_POLICY, "ask the orchestrator's operator for a release that does")
    policy = _proven_policy(told.policy, pinned)
    plan = SealedText(sealed=response.plan, digest=verified.plan_digest)
    found = explained(
        verified,
        approvals=_opened(response),
        policy=policy,
        policy_digest=sealing.sealed_digest(told.policy.body),
        proposer=proven_proposer(plan, policy),
        now=datetime.now(UTC),
        taken_back=taken_back,
    )
    session.output.emit(found.as_json(), lambda: explanation_text(found))


def _proven_policy(sealed: sealed_pb2.Sealed, key: PublicKey) -> Policy:
    check_media_type(sealed, sealing.POLICY)
    check_signature(sealed, key, what="policy")
    try:
        return open_policy(sealed.body)
    except sealing.SealingError as error:
        raise EvidenceError("MALFORMED", f"the policy: {error}", "ask the executor's operator") from None


def _opened(response: orchestrator_pb2.GetMissionResponse) -> list[OpenApproval]:
    return [
        OpenApproval(
            document=SealedText(sealed=sealed, digest=sealing.sealed_digest(sealed.body)),
            digest=sealing.sealed_digest(sealed.body),
            approval=open_document(sealed, evidence_pb2.Approval, what="approval"),
        )
        for sealed in response.approvals
    ]


def _trust_policy(state: StateDirectory, cases: CaseTable, file: str) -> Policy:
    """Have the executor's program read the trust file: there is no second reader of it."""
    arguments = ["policy"]
    if cases.trust:
        beside = Path.cwd() if file == "-" else Path(file).absolute().parent
        arguments += ["--file", str(beside / Path(cases.trust).expanduser())]
    text = trust_text(state, arguments)
    try:
        return open_policy(text.encode())
    except sealing.SealingError as error:
        raise ClientError("INTERNAL", f"the policy can not be read: {error}", "use one release for both") from None


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ClientError("MALFORMED", "the table of cases is not UTF-8", "save it as UTF-8") from None
