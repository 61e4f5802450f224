import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from client.bundle import Bundle
from client.bundle_file import bundle_text
from client.commands.arguments import MAX_BUNDLE, ExecutorKeyOption, MissionArgument, connect, read_input, whole_id
from client.errors import ClientError
from client.exporting import export_bundle
from client.orchestrator_command import pass_through, read_json
from client.proof_input import OwnKeys, anchors_of, read_proof, write_whole
from client.proving.anchors import Anchors
from client.proving.chain import Link
from client.proving.proof import Proof, prove, trace
from client.render.checks import proof_text
from client.render.events import event_json, event_line
from client.render.layout import fields, table
from client.render.states import replayed_text, state_text
from client.session import Session, run, session_of
from gonogo import sealing
from gonogo.signatures import PublicKey, SignatureError, load_public_key
from gonogo.v1 import evidence_pb2, executor_pb2


def events(context: typer.Context, mission: MissionArgument) -> None:
    """Print a mission's events so far."""
    run(_events(session_of(context), mission))


def trace_mission(context: typer.Context, mission: MissionArgument) -> None:
    """Print the chain from message to receipt."""
    run(_trace(session_of(context), mission))


def verify(
    context: typer.Context,
    mission: Annotated[
        str, typer.Argument(metavar="MISSION|FILE", help="A mission's id or its beginning, or a bundle; - reads one.")
    ] = "",
    from_file: Annotated[
        str, typer.Option("--from", metavar="FILE", help="A bundle, or what gonogo show -o json wrote.")
    ] = "",
    executor_key: ExecutorKeyOption = None,
    orchestrator_key: Annotated[
        Path | None,
        typer.Option("--orchestrator-key", metavar="FILE", help="The public key of the orchestrator's audit log."),
    ] = None,
    complete: Annotated[bool, typer.Option("--complete", help="What is not there counts as a failure.")] = False,
) -> None:
    """Check what a mission's documents and audit leaves prove; a file is checked without asking any service."""
    session = session_of(context)
    if bool(mission) == bool(from_file):
        raise ClientError("USAGE", "give a mission or a file", "gonogo verify MISSION, or gonogo verify FILE")
    own = OwnKeys(executor=executor_key, orchestrator=orchestrator_key)
    name = from_file or (mission if _is_file(mission) else "")
    if name:
        bundle = read_proof(read_input(name, MAX_BUNDLE), name)
        anchors = anchors_of(session.state, own, bundle)
    else:
        bundle, anchors = run(_fetched(session, mission, own))
    _show_proof(session, prove(bundle, anchors, complete=complete))


def export(
    context: typer.Context,
    mission: Annotated[str, typer.Argument(metavar="MISSION", help="A mission's id, or its beginning.")] = "",
    bundle: Annotated[
        str, typer.Option("--bundle", metavar="FILE", help="Write all that a proof of the mission needs; - prints it.")
    ] = "",
) -> None:
    """Print the whole event log as JSON lines, or write one mission's bundle."""
    session = session_of(context)
    if bool(mission) != bool(bundle):
        remedy = "gonogo export prints the whole log; gonogo export MISSION --bundle FILE writes one mission's proof"
        raise ClientError("USAGE", "a bundle is of one mission, into one file", remedy)
    if mission:
        run(_export(session, mission, bundle))
        return
    sys.stdout.flush()
    pass_through(session.state, "export", sys.stdout.buffer)


def replay(
    context: typer.Context,
    mission: Annotated[str, typer.Argument(metavar="MISSION", help="A mission's id, or its beginning.")] = "",
    until: Annotated[
        int | None,
        typer.Option("--until", metavar="SEQ", min=1, help="Show the mission as it stood after this event of it."),
    ] = None,
) -> None:
    """Rebuild the state from the log and compare it, or show one mission at one of its events."""
    session = session_of(context)
    if bool(mission) != (until is not None):
        remedy = "gonogo replay compares the whole log; gonogo replay --until SEQ MISSION shows one mission"
        raise ClientError("USAGE", "a mission is replayed up to one of its events", remedy)
    if until is not None:
        _replay_until(session, mission, until)
        return
    found = read_json(session.state, "replay")
    session.output.emit(found, lambda: replayed_text(found))
    if found.get("equal") is not True:
        remedy = "keep the state directory as it is and report this: the log and the state tell different things"
        raise ClientError("CHECK_FAILED", "the replayed state is not the live state", remedy)


def _replay_until(session: Session, mission: str, until: int) -> None:
    found = read_json(session.state, "replay", f"--mission={mission}", f"--until={until}")
    session.output.emit(found, lambda: state_text(found))
    if found["broken_at"]:
        remedy = "trust none of it before this is explained; gonogo verify tells more"
        raise ClientError("CHECK_FAILED", f"event {found['broken_at']} is not as it was written", remedy)


async def _events(session: Session, mission: str) -> None:
    async with connect(session) as client:
        whole = await whole_id(client, mission)
        found = [event async for part in client.watch(whole, follow=False) for event in part.events]
    session.output.emit_list([event_json(event) for event in found], lambda: "\n".join(map(event_line, found)))


async def _trace(session: Session, mission: str) -> None:
    async with connect(session) as client:
        links = trace(await export_bundle(client, session.state, mission))
    data = {"mission_id": _mission_of(links), "complete": _complete(links), "chain": [link.as_json() for link in links]}
    session.output.emit(data, lambda: _trace_text(links))
    broken = [link.kind for link in links if not link.ok]
    if broken:
        raise ClientError("CHECK_FAILED", f"the chain is broken at {', '.join(broken)}", "gonogo verify tells more")


async def _fetched(session: Session, mission: str, own: OwnKeys) -> tuple[Bundle, Anchors]:
    async with connect(session, own.executor) as client:
        bundle = await export_bundle(client, session.state, mission)
        anchors = anchors_of(session.state, own, bundle)
        named = keys_named(bundle) if bundle.policy is None else frozenset()
        if named:
            # A fingerprint binds a key: whoever hands it out, it is the key that the receipt names.
            told = _keys_of(await client.executor())
            known = {key_id: key for key_id, key in told.items() if key_id in named}
            anchors = replace(anchors, approvers={**known, **anchors.approvers})
    return bundle, anchors


def keys_named(bundle: Bundle) -> frozenset[str]:
    """Return the approvers' keys that a receipt names; no other is to be believed from an orchestrator."""
    if bundle.receipt is None:
        return frozenset()
    try:
        receipt = sealing.open_sealed(bundle.receipt.sealed.body, evidence_pb2.Receipt)
    except sealing.SealingError:  # the proof says so
        return frozenset()
    return frozenset(record.key_id for record in receipt.approvals)


async def _export(session: Session, mission: str, name: str) -> None:
    async with connect(session) as client:
        bundle = await export_bundle(client, session.state, mission)
    text = bundle_text(bundle)
    if name == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    write_whole(Path(name), text)
    said = {"mission_id": bundle.mission.mission_id, "file": name, "bytes": len(text)}
    session.output.emit(said, lambda: fields((key, str(value)) for key, value in said.items()))


def _is_file(named: str) -> bool:
    """Tell whether a file is meant: there is one, or no mission's id looks like that."""
    return named == "-" or Path(named).is_file() or "/" in named or "." in named


def _show_proof(session: Session, proof: Proof) -> None:
    session.output.emit(proof.as_json(), lambda: proof_text(proof.checks, proof.missing))
    if not proof.valid:
        first = proof.failed[0] if proof.failed else None
        failure = (
            f"{first.name}: {first.detail}" if first and first.detail else first.name if first else "nothing is there"
        )
        raise ClientError("CHECK_FAILED", failure, "trust none of it before this is explained")


def _trace_text(links: list[Link]) -> str:
    rows = [("ok" if link.ok else "BROKEN", link.kind, link.id, link.digest, link.named_by) for link in links]
    return table(("", "what", "id", "digest", "named by"), rows)


def _mission_of(links: list[Link]) -> str:
    return next((link.id for link in links if link.kind == "mission"), "")


def _complete(links: list[Link]) -> bool:
    return any(link.kind == "receipt" for link in links) and all(link.ok for link in links)


def _keys_of(executor: executor_pb2.GetExecutorResponse) -> dict[str, PublicKey]:
    found: dict[str, PublicKey] = {}
    for listed in (key for person in executor.persons for key in person.keys):
        try:
            public = load_public_key(listed.public_key)
        except SignatureError:
            continue
        found[public.key_id] = public
    return found
