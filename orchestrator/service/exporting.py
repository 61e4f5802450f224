"""Everything that a proof of one mission needs, from both services."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from orchestrator.domain import events as ev
from orchestrator.domain.errors import ExecutorUnavailableError, OrchestratorError, Reason
from orchestrator.domain.evidence import Sealed
from orchestrator.domain.mission import Mission
from orchestrator.service.audit import Audit
from orchestrator.service.audit_log import LogExtract
from orchestrator.service.documents import sealed_of
from orchestrator.service.event_log import EventReader, StoredEvent
from orchestrator.service.missions import MissionFile, Missions
from orchestrator.service.ports import Documents, EventCodec
from orchestrator.service.streams import chat_stream, mission_stream

ATTEMPTS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionExport:
    """A mission's documents, and its leaves in both audit logs."""

    file: MissionFile
    policy: Sealed | None
    """The executor's policy as the report names it; None where there is no report, or it was never seen."""
    own_log: LogExtract
    public_key: str
    """The key of this log's checkpoints."""
    executor_log: LogExtract | None = None
    """None where the executor could not be asked."""
    kept_checkpoint: str = ""
    """The executor's checkpoint that is kept here."""
    consistency: tuple[bytes, ...] = ()
    """Proof that the executor's checkpoint continues the kept one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exports:
    """Gathers exports."""

    missions: Missions
    reader: EventReader
    codec: EventCodec
    documents: Documents
    audit: Audit

    async def export(self, reference: str) -> MissionExport:
        """Gather everything about a mission, as it stands now.

        Raises:
            RequestRefusedError: no such mission.
            StateForbidsError: AUDIT_FORKED: nothing can be proved by a log that is forked.
        """
        witness = self.audit.witness
        witness.require_unforked()
        mission = self.missions.store.find(reference)
        theirs, kept, consistency = await self._executor_s(mission)
        witness.require_unforked()
        # Nothing waits between these reads and the checkpoint is signed after them: the state is that of the events.
        own = [*self._events(mission_stream(mission.mission_id))]
        events = [*self._chat_events(mission), *own]
        file = self.missions.file_of(self._as_written(mission.mission_id, own[-1].version))
        signed = await self.audit.log.sign_checkpoint()
        return MissionExport(
            file=file,
            policy=self._policy(_last_report(file)),
            own_log=await self.audit.extract(events, signed),
            public_key=self.audit.log.signer.public_key,
            executor_log=theirs,
            kept_checkpoint=kept,
            consistency=consistency,
        )

    async def _executor_s(self, mission: Mission) -> tuple[LogExtract | None, str, tuple[bytes, ...]]:
        """Return the executor's leaves with a kept checkpoint and the proof that theirs continues it.

        Its log may grow between two calls; then the leaves come under a checkpoint for which there is no proof yet, and
        both are asked for again.
        """
        witness = self.audit.witness
        try:
            for _attempt in range(ATTEMPTS):
                continued = await witness.exchange()
                if continued is None:
                    return None, "", ()
                extract = await self.audit.executor.mission_log(mission.mission_id)
                if extract is None:
                    extract = LogExtract(checkpoint=continued.note, entries=())
                if witness.opened(extract.checkpoint).size == continued.newer.size:
                    older = continued.older or continued.note
                    return extract, older, continued.consistency if continued.older else ()
        except ExecutorUnavailableError:
            return None, witness.kept.note if witness.kept else "", ()
        raise OrchestratorError(
            Reason.OVERLOADED, "the executor's log keeps growing while it is read", "Export the mission again."
        )

    def _as_written(self, mission_id: str, version: int) -> Mission:
        """Return the mission as its written events tell it; of one that runs, more may have happened already."""
        store = self.missions.store
        mission = store.state(mission_id)
        return mission if mission.last_sequence == version else store.as_it_was(mission_id, version)

    def _policy(self, report: Sealed | None) -> Sealed | None:
        digest = self.documents.open_report(report).policy_digest if report is not None else ""
        stored = self.reader.document(digest) if digest else None
        return sealed_of(stored) if stored is not None else None

    def _chat_events(self, mission: Mission) -> Iterator[StoredEvent]:
        """Yield the events of the message that the mission came from, so that the chain begins with what was said."""
        if not mission.session_id or not mission.message_id:
            return
        for stored in self._events(chat_stream(mission.session_id)):
            payload = self.codec.decode(stored).payload
            match payload:
                case ev.MessageReceived() | ev.IntentClassified() if payload.message_id == mission.message_id:
                    yield stored
                case _:
                    continue
            if isinstance(payload, ev.IntentClassified):
                return

    def _events(self, stream_id: str) -> Iterator[StoredEvent]:
        version = 0
        while page := self.reader.read_stream(stream_id, version):
            yield from page
            version = page[-1].version


def _last_report(file: MissionFile) -> Sealed | None:
    """Return the present plan's report; while a repair plan has none, that of the segment before."""
    earlier = (segment.report for segment in reversed(file.segments))
    return next((report for report in (file.report, *earlier) if report is not None), None)
