"""An execution as its caller sees it: live events, then the receipt, then the exit code."""

import asyncio
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeAlias

from client.api import GonogoClient, QueueWish
from client.documents import digest_of, receipt_json
from client.errors import ClientError, NotRunningError, RemoteError, ResultError
from client.exit_codes import BY_MISSION_STATUS, ExitCode, for_outcome
from client.json_form import short_name, to_json
from client.output import Format
from client.pausing import show_waiting, waiting_error, waiting_mission, waits
from client.render.events import event_json, event_line
from client.render.missions import mission_text
from client.render.receipts import receipt_text
from client.session import Session
from client.verification import check_media_type, check_signature, open_document, require_about
from gonogo import sealing
from gonogo.safe_text import safe_line
from gonogo.v1 import events_pb2, evidence_pb2, orchestrator_pb2

Updates: TypeAlias = AsyncIterator[orchestrator_pb2.ExecuteMissionResponse]
Decide: TypeAlias = Callable[[orchestrator_pb2.Mission, Updates], Awaitable[Updates]]
"""What is done about a pause: returns the stream to go on with, or raises."""


async def execute_mission(
    session: Session,
    client: GonogoClient,
    mission_id: str,
    *,
    detach: bool = False,
    queue: QueueWish | None = None,
    decide: Decide | None = None,
) -> None:
    """Execute a mission and show what happens, to its end or to where it waits for a person.

    Args:
        session: the command's.
        client: likewise.
        mission_id: the mission.
        detach: queue it, and follow nothing.
        queue: how it is queued.
        decide: is asked what to do about a pause; left out, the command ends there.

    Raises:
        ClientError: a gate refused, the outcome is not a success, or it waits.
    """
    last = orchestrator_pb2.ExecuteMissionResponse()
    updates = client.execute(mission_id, detach=detach, queue=queue)
    try:
        while True:
            async for part in updates:
                show_events(session, part.events)
                last = part
                mission = None if part.receipt.body else await waiting_mission(client, mission_id, part.events)
                if mission is not None:
                    updates = await (decide or _leave(session))(mission, updates)
                    break
            else:
                break
    except RemoteError as error:
        raise await _with_status(session, client, mission_id, error) from None
    except asyncio.CancelledError:  # ctrl-C ends this command, and nothing else
        found = shlex.quote(safe_line(mission_id))
        message = "interrupted; what has begun does not stop for that"
        remedy = f"gonogo watch {found} follows it, gonogo stop {found} ends it"
        raise ClientError("INTERRUPTED", message, remedy) from None
    except NotRunningError as error:
        raise cut_off(mission_id, error, last.resume_token) if last.resume_token else error from None
    if last.receipt.body:
        await _show_receipt(session, client, last, mission_id)
    else:
        _show_unfinished(session, last.mission, detached=detach)


def _leave(session: Session) -> Decide:
    async def leave(mission: orchestrator_pb2.Mission, _updates: Updates) -> Updates:
        show_waiting(session, mission)
        raise waiting_error(mission)

    return leave


def show_events(session: Session, events: Iterable[events_pb2.Event]) -> None:
    """Show live events: as data to the program that asked for lines, else to the person who watches."""
    for event in events:
        if session.output.format is Format.NDJSON:
            session.output.line(event_json(event))
        elif session.output.format is Format.TABLE:
            session.output.note(event_line(event))


def result_error(receipt: evidence_pb2.Receipt) -> ResultError | None:
    """Return the error that an outcome is, None for a success."""
    outcome = short_name(receipt, "execution_status")
    code = for_outcome(outcome, diverged=receipt.divergence_detected)
    if code is ExitCode.DONE:
        return None
    reason = receipt.abort_reason or ("DIVERGED" if receipt.divergence_detected else outcome.upper())
    failed = [step.error_message for step in receipt.steps if step.error_message]
    causes = [*receipt.errors, *failed, *receipt.divergence_details]
    message = f"the execution ended as {outcome or 'unspecified'}"
    remedy = f"gonogo show {receipt.mission_id} tells what was done; gonogo clone {receipt.mission_id} tries again"
    return ResultError(reason, f"{message}: {causes[0]}" if causes else message, remedy, exit_code=code)


async def _show_receipt(
    session: Session, client: GonogoClient, last: orchestrator_pb2.ExecuteMissionResponse, mission_id: str
) -> None:
    check_media_type(last.receipt, sealing.RECEIPT)
    check_signature(last.receipt, client.executor_key, what="receipt")
    receipt = open_document(last.receipt, evidence_pb2.Receipt, what="receipt")
    require_about(mission_id, receipt.mission_id, what="receipt")
    digest = digest_of(last.receipt)
    data = receipt_json(receipt, digest, last.mission)
    session.output.emit(data, lambda: receipt_text(receipt, digest))
    error = result_error(receipt)
    if error is not None:
        raise error


def _show_unfinished(session: Session, mission: orchestrator_pb2.Mission, *, detached: bool) -> None:
    """Show a mission that was queued; one that nobody asked to be queued should have ended."""
    session.output.emit(to_json(mission), lambda: mission_text(mission))
    if not detached:
        message = f"the execution left no receipt; the mission is {short_name(mission, 'status') or 'unknown'}"
        remedy = f"gonogo whiteboard {mission.mission_id} tells why; it is not run again by itself"
        raise ResultError("INTERNAL", message, remedy, exit_code=ExitCode.FAILED)


def cut_off(mission_id: str, error: NotRunningError, token: str) -> ClientError:
    """Return how a command ends whose stream broke off: with the one that goes on behind the last event shown."""
    message = "the connection was lost; an execution does not stop for that"
    command = shlex.join(["gonogo", "watch", safe_line(mission_id), "--from", safe_line(token)])
    return ClientError(error.reason, message, f"{command} goes on from here, once the services run")


async def _with_status(session: Session, client: GonogoClient, mission_id: str, error: RemoteError) -> ClientError:
    """Return the error with the exit code of what really keeps the mission from running."""
    if error.reason not in {"STATE_FORBIDS", "EXECUTION_PAUSED"}:
        return error
    try:
        mission = (await client.get(mission_id)).mission
    except ClientError:
        return error
    if waits(mission) and mission.mission_id.startswith(mission_id):
        show_waiting(session, mission)
        return waiting_error(mission)
    code = BY_MISSION_STATUS.get(short_name(mission, "status")) if error.reason == "STATE_FORBIDS" else None
    return error if code is None else ResultError(error.reason, error.message, error.remedy, exit_code=code)
