from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from client.commands.arguments import WHOLE_ID, KeyOption, MissionArgument, WhyOption, connect, whole_id
from client.errors import ClientError
from client.render.layout import fields
from client.revoking import (
    document_text,
    executor_id_of,
    hand_in,
    local_signer,
    revocation_address,
    sign_revocation,
)
from client.session import Session, run, session_of
from client.signing import Signer
from gonogo.v1 import executor_pb2, sealed_pb2

AsOption = Annotated[
    str, typer.Option("--as", metavar="PERSON", help="Who the key is, where the state's trust file does not say.")
]
ExecutorOption = Annotated[
    str, typer.Option("--executor", metavar="ID", help="The executor; the state's own where left out.")
]
AddressOption = Annotated[
    str,
    typer.Option(
        "--executor-revocations",
        metavar="ADDR",
        help="Where the executor takes revocations (GONOGO_EXECUTOR_REVOCATIONS); the running one's where left out.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Write the signed document for the command on the executor's host."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """What was said on the command line, besides the mission."""

    signer: Signer
    reason: str
    executor: str
    address: str
    out: Path | None


def revoke(
    context: typer.Context,
    mission: MissionArgument,
    message: WhyOption,
    key: KeyOption = None,
    person: AsOption = "",
    executor: ExecutorOption = "",
    address: AddressOption = "",
    out: OutOption = None,
) -> None:
    """Take your approvals of a mission back, for good: told to the executor itself."""
    session = session_of(context)
    options = _options(session, message, key, person, executor, address, out)
    run(_revoke(session, mission, options, denied=False))


def deny(
    context: typer.Context,
    mission: MissionArgument,
    message: WhyOption,
    key: KeyOption = None,
    person: AsOption = "",
    executor: ExecutorOption = "",
    address: AddressOption = "",
    out: OutOption = None,
) -> None:
    """End a mission at the executor, for good, whoever else approves it."""
    session = session_of(context)
    options = _options(session, message, key, person, executor, address, out)
    run(_revoke(session, mission, options, denied=True))


def _options(
    session: Session, message: str, key: Path | None, person: str, executor: str, address: str, out: Path | None
) -> _Options:
    return _Options(
        signer=local_signer(session.state, key.expanduser() if key else session.state.approver_key, person),
        reason=message,
        executor=executor or executor_id_of(session.state),
        address=address,
        out=out,
    )


async def _revoke(session: Session, mission: str, options: _Options, *, denied: bool) -> None:
    mission_id, executor_id = await _named(session, mission, options.executor)
    if options.signer.key.public.hardware:
        session.output.note("touch the security key when it blinks")
    document = sign_revocation(
        options.signer, mission_id=mission_id, executor_id=executor_id, deny=denied, reason=options.reason
    )
    if options.out is not None:
        _write(session, options.out, document)
        return
    answer = await hand_in(session.state, revocation_address(session.state, options.address), document)
    session.output.emit(
        _answer_json(answer, mission_id, executor_id),
        lambda: _answer_text(answer, mission_id, executor_id, denied=denied),
    )
    if not answer.in_time and not answer.stopping:
        raise ClientError(
            "ALREADY_EXECUTED",
            "it is recorded, and changes nothing: what was taken back was not waited for, or has ended",
            f"look at gonogo show {mission_id}; gonogo undo {mission_id} drafts the way back",
        )


async def _named(session: Session, mission: str, executor_id: str) -> tuple[str, str]:
    """Return the whole ids; the orchestrator is asked only for what nobody here knows."""
    if len(mission) >= WHOLE_ID and executor_id:
        return mission, executor_id
    async with connect(session) as client:
        whole = await whole_id(client, mission)
        return whole, executor_id or (await client.executor()).executor_id


def _write(session: Session, out: Path, document: sealed_pb2.Sealed) -> None:
    try:
        out.write_text(document_text(document), "utf-8")
    except OSError as error:
        raise ClientError("FILE_UNREADABLE", f"{out}: {error.strerror}", "name a file that can be written") from None
    session.output.emit({"written": str(out)}, lambda: f"on the executor's host: python -m executor revoke {out}")


def _answer_json(answer: executor_pb2.RevokeResponse, mission_id: str, executor_id: str) -> dict[str, object]:
    return {
        "revocation_id": answer.revocation_id,
        "mission_id": mission_id,
        "executor_id": executor_id,
        "in_time": answer.in_time,
        "stopping": answer.stopping,
    }


def _answer_text(answer: executor_pb2.RevokeResponse, mission_id: str, executor_id: str, *, denied: bool) -> str:
    outcome = "it ran already"
    if answer.in_time:
        outcome = (
            "in time: it will never be executed" if denied else "in time: it will not be executed on your approvals"
        )
    elif answer.stopping:
        outcome = "it is being executed, and stops before its next step"
    pairs = [
        ("revocation", answer.revocation_id),
        ("mission", mission_id),
        ("executor", executor_id),
        ("outcome", outcome),
    ]
    return fields(pairs)
