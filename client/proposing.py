"""The ways to a proposer's signature: under a draft of one's own, and under a mission that is there.

A draft is compared with what was sealed of it, and signed. What is there already is checked, shown, asked for, signed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from client.api import GonogoClient
from client.approver_keys import find_key
from client.approving import SHORT_FORM, Terminal
from client.errors import ClientError, TerminalNeededError
from client.key_owners import owner_at, signer_of
from client.plan_signing import ProposedPlan, handed_plan
from client.render.plans import plan_text
from client.session import Session
from client.signing import Signer
from client.verification import require_asked_for
from gonogo.safe_text import safe_line
from gonogo.v1 import orchestrator_pb2, plan_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningOptions:
    """What the proposer says."""

    key: Path
    yes: bool = False


async def propose_draft(
    session: Session, client: GonogoClient, draft: plan_pb2.PlanDraft, key_file: Path | None
) -> orchestrator_pb2.ProposeMissionResponse:
    """Propose a draft, signed as its proposer where a key is given.

    Raises:
        ClientError: the key can not be used, or the orchestrator refused.
        EvidenceError: another plan was sealed than the draft says; it stays unsigned.
    """
    signer = await proposer_at(session, client, key_file) if key_file else None
    proposed = await client.propose(draft, sign=signer)
    if signer is not None:
        say_signed(session, signer)
    return proposed


async def sign_mission(
    session: Session, client: GonogoClient, mission: str, options: SigningOptions, terminal: Terminal
) -> orchestrator_pb2.SignPlanResponse:
    """Show a mission's plan, ask, sign and hand in.

    Raises:
        ClientError: the plan is not the mission's or names another proposer, nobody is there to ask, the person said
            no, the key can not be used, or the orchestrator refused.
    """
    response = await client.get(mission)
    require_asked_for(mission, response.mission.mission_id)
    signer = await proposer_at(session, client, options.key)
    plan = handed_plan(response, signer.person)
    if not (options.yes and session.output.machine):
        session.output.note(plan_text(plan.plan, plan.digest))
    if not options.yes:
        _ask(plan, terminal.ask)
    signed = await client.sign_plan(plan, signer)
    say_signed(session, signer)
    return signed


def say_signed(session: Session, signer: Signer) -> None:
    """Tell a person who has signed as the proposer."""
    if not session.output.machine:
        session.output.note(f"signed by {safe_line(signer.person)} with {signer.key.public.key_id}")


async def proposer_at(session: Session, client: GonogoClient, key_file: Path) -> Signer:
    """Find the key to propose with, and whose it is.

    Raises:
        KeyFileError: it can not be read, nobody at hand can sign with it, or it is nobody's whom the executor knows.
        TerminalNeededError: it has a passphrase and there is no terminal.
    """
    key = find_key(key_file)
    signer = signer_of(key, await owner_at(session.state, client, key.public, key_file))
    if key.public.hardware:
        session.output.note("touch the security key when it blinks")
    return signer


def _ask(plan: ProposedPlan, ask: Callable[[str], str] | None) -> None:
    mission_id = plan.plan.mission_id
    if ask is None:
        remedy = f"look at it with gonogo show {mission_id}, then: gonogo sign {mission_id} --key FILE --yes"
        raise TerminalNeededError("NO_TERMINAL", "a person must answer and there is no terminal to ask on", remedy)
    short = plan.digest.removeprefix("sha256:")[:SHORT_FORM]
    if ask(f"Sign plan {short} as its proposer {plan.plan.proposer}? [y/N] ").lower() not in {"y", "yes"}:
        raise ClientError("DECLINED", "not signed", f"gonogo reject {mission_id} -m WHY ends the mission")
