from typing import Annotated

import typer

from client.commands.arguments import connect, read_input
from client.errors import ClientError
from client.json_form import rfc3339, to_json
from client.output import Format
from client.render.layout import when
from client.render.missions import mission_text
from client.session import Session, run, session_of
from client.signing import new_id
from gonogo.safe_text import safe_block
from gonogo.v1 import events_pb2, orchestrator_pb2


def chat(
    context: typer.Context,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to say; - reads standard input.")],
    session_id: Annotated[str, typer.Option("--session", metavar="ID", help="Go on with this session.")] = "",
    workspace: Annotated[str, typer.Option(metavar="ID", help="The workspace meant where the text names none.")] = "",
    heard_by: Annotated[
        str, typer.Option(metavar="SOURCE", help="The text is a transcription made by this recogniser.")
    ] = "",
) -> None:
    """Say what shall be done."""
    said = _said(text)
    heard = events_pb2.Transcription(transcription_id=new_id("t"), text=said, source=heard_by) if heard_by else None
    run(_chat(session_of(context), said, session_id, workspace, heard))


def messages(
    context: typer.Context, session_id: Annotated[str, typer.Argument(metavar="SESSION", help="A chat session's id.")]
) -> None:
    """Show the messages of a chat session."""
    run(_messages(session_of(context), session_id))


def _said(text: str) -> str:
    if text != "-":
        return text
    try:
        return read_input(text).decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ClientError("MALFORMED", "standard input is not UTF-8", "send the message as UTF-8 text") from None


async def _chat(
    session: Session, text: str, session_id: str, workspace: str, heard: events_pb2.Transcription | None
) -> None:
    async with connect(session) as client:
        answer = await client.send_message(text, session_id=session_id, workspace_id=workspace, transcription=heard)
    session.output.emit(_answer_json(answer), lambda: _answer_text(answer))
    if answer.intent == events_pb2.INTENT_KIND_UNCLEAR:
        remedy = f"say it like: {answer.nearest[0]}" if answer.nearest else "write a plan file: gonogo propose -f FILE"
        raise ClientError("MALFORMED", "the message was not understood; nothing was proposed", remedy)


def _answer_json(answer: orchestrator_pb2.SendMessageResponse) -> dict[str, object]:
    mission = to_json(answer.mission) if answer.HasField("mission") else None
    names = ("mission_id", "plan_id", "plan_digest", "status")
    flat = {name: mission[name] for name in names} if mission else dict.fromkeys(names)
    return {**to_json(answer), **flat}


def _answer_text(answer: orchestrator_pb2.SendMessageResponse) -> str:
    parts = [safe_block(answer.reply)]
    parts += [f"  {safe_block(form)}" for form in answer.nearest]
    if answer.HasField("mission"):
        parts += ["", mission_text(answer.mission)]
    return "\n".join([*parts, "", f"session  {answer.session_id}"])


async def _messages(session: Session, session_id: str) -> None:
    async with connect(session) as client:
        found = await client.messages(session_id)
    rows = [{**to_json(message), "time": rfc3339(message.time)} for message in found]
    text = "\n".join(f"{when(one.time)}  {safe_block(one.actor)}: {safe_block(one.text)}" for one in found)
    if session.output.format is Format.NDJSON:
        session.output.emit_list(rows, lambda: text)
    else:
        session.output.emit({"session_id": session_id, "messages": rows}, lambda: text)
