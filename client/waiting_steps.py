"""The way to a signature about one step that an execution waits at: verify, show, ask, sign, hand in."""

from collections.abc import Callable, Sequence

from client.api import GonogoClient
from client.approving import DIFFS_SHOWN, SHORT_FORM, ApprovalOptions, Terminal, find_signer
from client.changes import net_changes
from client.control_calls import APPROVE_STEP, RECONCILE
from client.controlling import control_mission
from client.diffs import FileDiff, file_diff
from client.errors import ClientError, TerminalNeededError
from client.render.diffs import diffs_text, wants_colour
from client.render.layout import indented
from client.render.pauses import pause_text
from client.render.plans import step_text
from client.render.reports import changes_text, step_report_text
from client.session import Session
from client.signing import Signer
from client.step_words import VerifiedStep, sign_reconciliation, sign_step_approval, verify_step
from client.witnessing import witness_logs
from gonogo.safe_text import safe_line
from gonogo.v1 import events_pb2, evidence_pb2, orchestrator_pb2


async def approve_step(
    session: Session, client: GonogoClient, mission: str, step_id: str, options: ApprovalOptions, terminal: Terminal
) -> orchestrator_pb2.Mission:
    """Show a step that waits, ask, sign that it may be committed, and hand that in; returns the mission then.

    Raises:
        ClientError: it does not wait, does not hold, nobody is there to ask, the person said no, the key can not be
            used, an audit log has forked, or the executor refused.
    """
    response = await client.get(mission)
    found = verify_step(mission, step_id, response, client.executor_key, events_pb2.PAUSE_KIND_STEP_APPROVAL)
    if terminal.ask is None and not options.yes:
        raise _nobody_to_ask(found)
    if not (options.yes and session.output.machine):
        session.output.note(step_words(found))
        session.output.note(await _diff_text(session, client, found))
    if not options.yes and terminal.ask is not None:
        ask_about_step(found, terminal.ask)
    signer = await _signer(session, client, options, found)
    document = sign_step_approval(found, signer, comment=options.comment, lifetime=options.lifetime)
    return await control_mission(client, response.mission, APPROVE_STEP, reason=options.comment, document=document)


async def deny_step(
    session: Session, client: GonogoClient, mission: str, step_id: str, options: ApprovalOptions
) -> orchestrator_pb2.Mission:
    """Sign that a step that waits may not be committed, which stops the execution; raises as `approve_step` does."""
    response = await client.get(mission)
    found = verify_step(mission, step_id, response, client.executor_key, events_pb2.PAUSE_KIND_STEP_APPROVAL)
    signer = await _signer(session, client, options, found)
    document = sign_step_approval(found, signer, deny=True, comment=options.comment, lifetime=options.lifetime)
    return await control_mission(client, response.mission, APPROVE_STEP, reason=options.comment, document=document)


async def reconcile_step(
    session: Session, client: GonogoClient, mission: str, step_id: str, options: ApprovalOptions, *, happened: bool
) -> orchestrator_pb2.Mission:
    """Sign whether the effect of a step happened, and hand that in; raises as `approve_step` does."""
    response = await client.get(mission)
    found = verify_step(mission, step_id, response, client.executor_key, events_pb2.PAUSE_KIND_UNKNOWN_EFFECT)
    if not session.output.machine:
        session.output.note(step_words(found))
    signer = await _signer(session, client, options, found)
    document = sign_reconciliation(found, signer, happened=happened, reason=options.comment)
    return await control_mission(client, response.mission, RECONCILE, reason=options.comment, document=document)


def step_words(found: VerifiedStep) -> str:
    """Return what a person decides on, from the verified bytes."""
    plan = found.mission.plan
    net = net_changes([found.report.changes])
    segment = f", segment {plan.segment}" if plan.segment else ""
    parts = [
        safe_line(f"STEP of mission {plan.mission_id}{segment}: {plan.objective}"),
        indented(step_text(found.step)),
        f"DRY RUN (signed by the executor, {found.mission.report_key_id})",
        indented(step_report_text(found.report)),
        *([indented(changes_text(net))] if net else []),
        "WAITS",
        indented(pause_text(found.pause, plan.mission_id)),
    ]
    return "\n".join(parts)


def ask_about_step(found: VerifiedStep, ask: Callable[[str], str]) -> None:
    """Ask whether to go; what can not be taken back wants a part of the step's digest typed.

    Raises:
        ClientError: the answer is not a clear yes.
    """
    short = found.digest.removeprefix("sha256:")[:SHORT_FORM]
    named = safe_line(found.step.step_id)
    risky = found.report.irreversible or found.mission.report.risk.level == evidence_pb2.RISK_LEVEL_HIGH
    if risky:
        wish = f"HIGH RISK. Type the first {SHORT_FORM} digits of the step's digest ({short}) to approve {named}: "
        agreed = ask(wish) == short
    else:
        agreed = ask(f"Approve step {named} ({short})? [y/N] ").lower() in {"y", "yes"}
    if not agreed:
        mission_id = found.mission.plan.mission_id
        remedy = f"nothing was signed; gonogo deny-step {mission_id} {found.step.step_id} stops the execution"
        raise ClientError("DECLINED", "not approved", remedy)


async def _diff_text(session: Session, client: GonogoClient, found: VerifiedStep) -> str:
    net = net_changes([found.report.changes])
    if not net:
        return ""
    mission_id = found.mission.plan.mission_id
    diffs: Sequence[FileDiff] = [await file_diff(client, mission_id, change) for change in net[:DIFFS_SHOWN]]
    lines = ["", "DIFF", diffs_text(diffs, coloured=wants_colour(session.output.stderr))]
    if len(net) > DIFFS_SHOWN:
        lines.append(f"… {len(net) - DIFFS_SHOWN} more paths")
    return "\n".join(lines)


async def _signer(session: Session, client: GonogoClient, options: ApprovalOptions, found: VerifiedStep) -> Signer:
    signer = await find_signer(session, client, options)
    await witness_logs(client, session.state, found.mission.plan.executor_id)
    if signer.key.public.hardware:
        session.output.note("touch the security key when it blinks")
    return signer


def _nobody_to_ask(found: VerifiedStep) -> TerminalNeededError:
    mission_id, step_id = found.mission.plan.mission_id, found.step.step_id
    remedy = f"look at it with gonogo show {mission_id} and gonogo diff {mission_id}, then: "
    remedy += f"gonogo approve-step {mission_id} {step_id} --key FILE --yes"
    return TerminalNeededError("NO_TERMINAL", "a person must answer and there is no terminal to ask on", remedy)
