"""The whole chain in one process, without servers and without sockets.

The orchestrator's use cases run over their real SQLite log, the executor's core over its real ledger, workspace and
sandbox. Between them stand the real adapters of both sides and a channel that carries bytes (`loopback`). `bounded_run`
drives the queue's worker for at most some seconds and tells what happened.

`python -m tests.e2e.bounded_run` takes a chat message to a receipt in this way, prints each step, and ends 0 only when
each came out as it should.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from client.initialise import initialise
from client.signing import Signer, new_id, read_public_key, read_signing_key, sign_approval
from client.state import StateDirectory
from client.verification import VerifiedMission, require_success, verify_mission
from executor.bootstrap import build_core
from executor.entrypoints.grpc_service import ExecutorService
from executor.runner.service import ExecutorCore
from executor.settings import read_settings
from gonogo import sealing
from gonogo.digests import digest
from gonogo.v1 import evidence_pb2, executor_pb2_grpc
from orchestrator.adapters import wire
from orchestrator.adapters.audit_key import load_executor_key, load_log_key
from orchestrator.adapters.event_log_sqlite import SqliteEventLog
from orchestrator.adapters.executor_grpc import GrpcExecutor
from orchestrator.bootstrap import Orchestrator, compose, open_log
from orchestrator.domain.errors import OrchestratorError, Reason
from orchestrator.domain.evidence import Sealed
from orchestrator.domain.mission import Mission, MissionStatus
from orchestrator.service.event_log import EventReader
from orchestrator.service.intake import ChatTurn, Reply
from orchestrator.service.mission_row import mission_of_row
from orchestrator.service.requests import Request
from orchestrator.service.streams import MISSIONS
from tests.e2e.loopback import Handlers, LoopbackChannel

IDENTITY = "spiffe://gonogo.local/orchestrator"
OWNER = "owner"
UNDER_WAY = (MissionStatus.QUEUED, MissionStatus.ACTIVE)
POLL_SECONDS = 0.01
SECONDS = 30.0
MESSAGE = "in site: replace 'colour' with 'color' in guide.md, then create new.md with 'hi\\n'"
ROOT = Path(__file__).resolve().parents[2]


class ValidationFailedError(Exception):
    """A step of the validation did not come out as it should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundedRun:
    """What a bounded run did: each mission that was under way at its start, as it stands at its end."""

    missions: tuple[Mission, ...]
    seconds: float

    @property
    def finished(self) -> bool:
        """Nothing is under way any more."""
        return all(mission.status not in UNDER_WAY for mission in self.missions)


class Chain:
    """Both services on one state directory. Each `life` is one of the orchestrator's; the executor goes on."""

    def __init__(self, state: StateDirectory, core: ExecutorCore) -> None:
        self.state = state
        self.core = core
        self._handlers = Handlers()
        server: Any = self._handlers
        executor_pb2_grpc.add_ExecutorServiceServicer_to_server(ExecutorService(core), server)

    @property
    def database(self) -> Path:
        return self.state.root / "orchestrator" / "events.db"

    def open_log(self) -> SqliteEventLog:
        """Open the orchestrator's log with its key."""
        return open_log(self.database, load_log_key(self.state.keys / "orchestrator"))

    def compose(self, log: SqliteEventLog) -> Orchestrator:
        """Compose the orchestrator over a log and this chain's executor."""
        channel: Any = LoopbackChannel(self._handlers, IDENTITY)
        key = load_executor_key(self.state.executor_public_key)
        return compose(log, GrpcExecutor(channel), executor_key=key)


@contextmanager
def chain(folder: Path, *, tools: Path | None = None) -> Iterator[Chain]:
    """Make a state directory and the workspace `site` where they are missing, and run the executor there."""
    state = StateDirectory(root=folder / "state")
    if not state.initialised:
        initialise(state)
    (folder / "site").mkdir(exist_ok=True)
    arguments = ["--state", str(state.root), "--workspace", f"site={folder / 'site'}"]
    arguments += ["--tools", str(tools)] if tools else []
    with ExitStack() as closing:
        yield Chain(state, build_core(read_settings(arguments, {}), closing))


class Office:
    """One life of the orchestrator in which people ask for things; what is queued stays in the queue."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._log = chain.open_log()
        self.orchestrator = chain.compose(self._log)
        self.use = self.orchestrator.use_cases

    async def __aenter__(self) -> Self:
        await self.use.dispatcher.close()  # a closed dispatcher writes the queue down and works none of it off
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.orchestrator.close()
        self._log.close()

    async def say(self, text: str) -> Reply:
        """Send one chat message."""
        turn = ChatTurn(session_id="", text=text, transcription=None, workspace_id="")
        return await self.orchestrator.intake.send(asked(), turn)

    async def dry_run(self, mission_id: str) -> Sealed:
        """Have a mission dry-run; return the report."""
        answer = await self.use.dry_runs.dry_run(asked(), mission_id)
        return self.use.dry_runs.report_of(answer.mission)

    async def approve(self, mission_id: str) -> Mission:
        """Verify plan and report as the approver's client does, sign with the approver's key, hand the approval in."""
        state = self._chain.state
        signer = Signer(key=read_signing_key(state.approver_key), person=OWNER)
        sealed = wire.sealed_from_proto(sign_approval(self.verified(mission_id), signer))
        return (await self.use.approvals.approve(asked(), mission_id, sealed)).mission

    def verified(self, mission_id: str) -> VerifiedMission:
        """Verify a mission's plan and report with the executor's pinned key."""
        file = self.use.missions.file(mission_id)
        if file.plan is None or file.report is None:
            raise ValidationFailedError(f"mission {mission_id} has no plan or no report")
        found = verify_mission(
            mission_id=mission_id,
            plan=wire.sealed_to_proto(file.plan),
            report=wire.sealed_to_proto(file.report),
            executor_key=read_public_key(self._chain.state.executor_public_key),
        )
        require_success(found)
        return found

    async def queue(self, mission_id: str) -> Mission:
        """Queue an approved mission."""
        updates = [update async for update in self.use.dispatcher.enqueue(asked(), mission_id)]
        queued = updates[-1].mission
        if queued is None:
            raise ValidationFailedError("the queue answered without the mission")
        return queued

    async def execute(self, mission_id: str) -> Mission:
        """Execute an approved mission to its end."""
        updates = [update async for update in self.use.executions.execute(asked(), mission_id)]
        done = updates[-1].mission
        if done is None:
            raise ValidationFailedError("the execution answered without the mission")
        return done

    def receipt(self, mission_id: str) -> evidence_pb2.Receipt:
        """Return a mission's receipt after checking the executor's signature over it."""
        file = self.use.missions.file(mission_id)
        if file.receipt is None:
            raise ValidationFailedError(f"mission {mission_id} has no receipt")
        self.use.missions.documents.verify(file.receipt, read_public_key(self._chain.state.executor_public_key).line)
        return sealing.open_sealed(file.receipt.body, evidence_pb2.Receipt)


async def bounded_run(chain: Chain, seconds: float) -> BoundedRun:
    """Start an orchestrator on what the log holds, work the queue off for at most `seconds`, and end it.

    What is not done by then stays under way: the executor goes on with what it claimed, and the next run takes it up.
    """
    log = chain.open_log()
    began = time.monotonic()
    try:
        waiting = tuple(mission.mission_id for mission in standing(log, UNDER_WAY))
        orchestrator = chain.compose(log)
        orchestrator.start()
        try:
            while standing(log, UNDER_WAY) and time.monotonic() - began < seconds:  # noqa: ASYNC110 - the log is looked at
                await asyncio.sleep(POLL_SECONDS)
        finally:
            await orchestrator.close()
        found = tuple(mission_of_row(row) for key in waiting if (row := log.projection(MISSIONS, key)) is not None)
    finally:
        log.close()
    return BoundedRun(missions=found, seconds=time.monotonic() - began)


def standing(log: EventReader, statuses: tuple[MissionStatus, ...]) -> list[Mission]:
    """Return the missions that stand so."""
    return [mission_of_row(row) for status in statuses for row in log.projections(MISSIONS, status=status.value)]


def asked() -> Request:
    """Return a request that was never made before."""
    name = new_id("q")
    return Request(request_id=name, digest=digest(name.encode()), person=OWNER)


def replayed(chain: Chain) -> bool:
    """Have the orchestrator's own command fold the log into an empty database, and tell whether the digests agree."""
    argv = [sys.executable, "-m", "orchestrator", "replay", "--state", str(chain.state.root), "-o", "json"]
    ran = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.returncode == 0 and '"equal": true' in ran.stdout


async def validate(folder: Path) -> None:
    """Take a chat message to a receipt and through the refusals, telling each step.

    Raises:
        ValidationFailedError: a step did not come out as it should.
    """
    site = folder / "site"
    site.mkdir()
    (site / "guide.md").write_text("the colour of it\n")
    with chain(folder) as house:
        async with Office(house) as office:
            mission_id = await _prepare(office, site)
        run = await bounded_run(house, SECONDS)
        [done] = run.missions
        _expect(done.status is MissionStatus.COMPLETED, f"the bounded run executed it: {done.status.value}")
        _expect((site / "guide.md").read_text() == "the color of it\n", "the approved edit is there, byte for byte")
        _expect((site / "new.md").read_text() == "hi\n", "the approved new file is there")
        async with Office(house) as office:
            await _prove(office, mission_id)
        _expect(replayed(house), "the log, replayed into an empty database, gives the same state")


async def _prepare(office: Office, site: Path) -> str:
    """From the chat message to the queue."""
    before = (site / "guide.md").read_bytes()
    reply = await office.say(MESSAGE)
    if reply.mission is None:
        raise ValidationFailedError(f"the message proposed nothing: {reply.text}")
    mission_id = reply.mission.mission_id
    _expect(reply.mission.status is MissionStatus.PROPOSED, f"a chat message became mission {mission_id}, proposed")
    await office.dry_run(mission_id)
    _expect(bool(office.verified(mission_id).report.steps), "the dry run succeeded; the report's signature holds")
    _expect(await _refusal(office.execute(mission_id)) is Reason.NOT_APPROVED, "unapproved, it is refused")
    _expect((site / "guide.md").read_bytes() == before, "nothing has been touched")
    approved = await office.approve(mission_id)
    _expect(approved.status is MissionStatus.APPROVED, "the owner signed exactly this change with a real key")
    queued = await office.queue(mission_id)
    _expect(queued.status is MissionStatus.QUEUED, "it is queued")
    again = await _refusal(office.queue(mission_id))
    _expect(again is Reason.ALREADY_CLAIMED, "it can not be queued twice")
    return mission_id


async def _prove(office: Office, mission_id: str) -> None:
    """Receipt, fingerprints, and the second execution."""
    receipt = office.receipt(mission_id)
    _expect(receipt.mission_id == mission_id, f"receipt {receipt.receipt_id} carries the executor's signature")
    same = receipt.after_fingerprint == receipt.expected_after_fingerprint
    _expect(same, "the result is what the report promised")
    second = await _refusal(office.execute(mission_id))
    _expect(second is Reason.ALREADY_EXECUTED, "a second execution is refused")


async def _refusal(work: Awaitable[object]) -> Reason:
    try:
        await work
    except OrchestratorError as error:
        return error.reason
    raise ValidationFailedError("something that must be refused was not")


def _expect(held: bool, step: str) -> None:
    if not held:
        raise ValidationFailedError(f"this did not hold: {step}")
    sys.stdout.write(f"ok  {step}\n")


def main() -> int:
    """Run the validation in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="gonogo-bounded-") as folder:
        try:
            asyncio.run(validate(Path(folder)))
        except ValidationFailedError as error:
            sys.stderr.write(f"the validation failed: {error}\n")
            return 1
    sys.stdout.write("the whole chain holds\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
