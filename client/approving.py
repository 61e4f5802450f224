"""The way to a signature: verify, show what was verified, ask, sign, hand in."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from client.api import GonogoClient
from client.approver_keys import find_key
from client.changes import net_changes
from client.diffs import file_diff
from client.errors import ClientError, TerminalNeededError
from client.key_owners import owner_at, signer_of
from client.render.diffs import diffs_text, wants_colour
from client.render.plans import plan_text
from client.render.reports import report_text
from client.session import Session
from client.signing import DEFAULT_LIFETIME, Signer, require_approving
from client.verification import VerifiedMission, require_asked_for, require_success, verify_mission
from client.witnessing import witness_logs
from gonogo.v1 import evidence_pb2, orchestrator_pb2

SHORT_FORM = 8
DIFFS_SHOWN = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """How a person is asked; `ask` is None where nobody is there."""

    ask: Callable[[str], str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalOptions:
    """What the approver says besides yes."""

    key: Path
    yes: bool = False
    comment: str = ""
    lifetime: timedelta = DEFAULT_LIFETIME
    person: str = ""


def this_terminal() -> Terminal:
    """Return the terminal of this process, if there is one."""
    return Terminal(ask=_ask_on_terminal if sys.stdin.isatty() else None)


async def fetch_verified(client: GonogoClient, mission: str) -> VerifiedMission:
    """Fetch a mission's plan and report and check them against the pinned key.

    Raises:
        EvidenceError: they do not hold, or are about another mission than the one named.
    """
    response = await client.get(mission)
    found = response.mission.mission_id
    require_asked_for(mission, found)
    return verify_mission(
        mission_id=found, plan=response.plan, report=response.report, executor_key=client.executor_key
    )


async def approve_mission(
    session: Session, client: GonogoClient, mission: VerifiedMission, options: ApprovalOptions, terminal: Terminal
) -> orchestrator_pb2.ApproveMissionResponse:
    """Show a verified mission, ask, sign and hand in.

    Raises:
        ClientError: the report is no success, nobody is there to ask, the person said no, the key can not be used, an
            audit log has forked, or the orchestrator refused.
    """
    require_success(mission)
    if options.yes:
        if not session.output.machine:
            session.output.note(approval_text(mission))
    elif terminal.ask is None:
        raise nobody_to_ask(mission.plan.mission_id)
    else:
        session.output.note(approval_text(mission))
        session.output.note(await diff_text(client, mission, coloured=wants_colour(session.output.stderr)))
        ask_person(mission, terminal.ask)
    signer = await find_signer(session, client, options)
    seen = await witness_logs(client, session.state, mission.plan.executor_id)
    if signer.key.public.hardware:
        session.output.note("touch the security key when it blinks")
    return await client.approve(
        mission,
        signer,
        comment=options.comment,
        lifetime=options.lifetime,
        audit_checkpoint=seen.executor_note,
    )


async def diff_text(client: GonogoClient, mission: VerifiedMission, *, coloured: bool) -> str:
    """Return what a verified mission changes, file by file."""
    mission_id = mission.plan.mission_id
    net = net_changes(step.changes for step in mission.report.steps)
    diffs = [await file_diff(client, mission_id, change) for change in net[:DIFFS_SHOWN]]
    lines = ["", "DIFF", diffs_text(diffs, coloured=coloured)]
    if len(net) > DIFFS_SHOWN:
        lines.append(f"… {len(net) - DIFFS_SHOWN} more paths: gonogo diff {mission_id} shows them all")
    return "\n".join(lines)


def approval_text(mission: VerifiedMission) -> str:
    """Return what a person decides on, from the verified bytes."""
    return "\n\n".join(
        [
            "PLAN",
            plan_text(mission.plan, mission.plan_digest),
            f"REPORT (signed by the executor, {mission.report_key_id})",
            report_text(mission.report, mission.report_digest),
        ]
    )


def ask_person(mission: VerifiedMission, ask: Callable[[str], str]) -> None:
    """Ask whether to go; a high risk wants a part of the digest typed, which nobody types by habit.

    Raises:
        ClientError: the answer is not a clear yes.
    """
    short = mission.plan_digest.removeprefix("sha256:")[:SHORT_FORM]
    if mission.report.risk.level == evidence_pb2.RISK_LEVEL_HIGH:
        agreed = (
            ask(f"HIGH RISK. Type the first {SHORT_FORM} digits of the plan's digest ({short}) to approve: ") == short
        )
    else:
        agreed = ask(f"Approve plan {short}? [y/N] ").lower() in {"y", "yes"}
    if not agreed:
        mission_id = mission.plan.mission_id
        remedy = f"nothing was signed; gonogo reject {mission_id} -m WHY ends the mission"
        raise ClientError("DECLINED", "not approved", remedy)


def nobody_to_ask(mission_id: str) -> TerminalNeededError:
    """Return the error for a question that nobody can answer."""
    remedy = f"look at it with gonogo show {mission_id} and gonogo diff {mission_id}, then: "
    remedy += f"gonogo approve {mission_id} --key FILE --yes"
    return TerminalNeededError("NO_TERMINAL", "a person must answer and there is no terminal to ask on", remedy)


async def find_signer(session: Session, client: GonogoClient, options: ApprovalOptions) -> Signer:
    """Find the key to approve with, and whose it is.

    Raises:
        KeyFileError: it can not be read, nobody at hand can sign with it, it belongs to nobody the executor knows, or
            it is only for proposing.
        TerminalNeededError: it has a passphrase and there is no terminal.
    """
    key = find_key(options.key)
    owner = await owner_at(session.state, client, key.public, options.key)
    require_approving(owner, options.key)
    if options.person and options.person != owner.person:
        message = f"the key {options.key} is {owner.person}'s, not {options.person}'s"
        raise ClientError("APPROVER_UNKNOWN", message, "use your own key, or leave --as out")
    return signer_of(key, owner)


def _ask_on_terminal(question: str) -> str:
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip()
