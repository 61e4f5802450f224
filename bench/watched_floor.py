"""The floor of watching: a server that sends messages which it made beforehand, and does nothing else."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio

from gonogo.certificate_files import CertificateFiles
from gonogo.grpc_credentials import mutual_tls
from gonogo.v1 import events_pb2
from gonogo.v1 import orchestrator_pb2 as pb
from gonogo.v1.orchestrator_pb2_grpc import MissionServiceServicer, add_MissionServiceServicer_to_server

READY = "ready "
BATCH = 500


def batches(events: int, text: str) -> list[pb.WatchMissionResponse]:
    """Return so many events in the messages in which they are sent."""
    made = [
        events_pb2.Event(
            event_id=f"e-00000000000000000001-{sequence:06d}",
            mission_id="m-00000000000000000001",
            sequence=sequence,
            actor="owner",
            feedback_recorded=events_pb2.FeedbackRecorded(text=f"{sequence}: {text}"),
        )
        for sequence in range(1, events + 1)
    ]
    for event in made:
        event.time.GetCurrentTime()
    return [
        pb.WatchMissionResponse(events=made[first : first + BATCH], resume_token="m-00000000000000000001:000000")
        for first in range(0, events, BATCH)
    ]


class Floor(MissionServiceServicer):
    """Sends what is there and waits until its caller goes."""

    def __init__(self, messages: list[pb.WatchMissionResponse]) -> None:
        self._messages = messages

    async def WatchMission(  # noqa: N802 - gRPC names it
        self,
        request: pb.WatchMissionRequest,  # noqa: ARG002 - all callers get the same
        context: grpc.aio.ServicerContext[object, object],  # noqa: ARG002 - nothing is said of the call
    ) -> AsyncIterator[pb.WatchMissionResponse]:
        """Send everything."""
        for message in self._messages:
            yield message
        await asyncio.Event().wait()


async def serve(tls: Path, events: int, text: str) -> None:
    """Serve until the process is ended."""
    server = grpc.aio.server()
    add_MissionServiceServicer_to_server(Floor(batches(events, text)), server)  # type: ignore[abstract]  # one method is all it serves
    port = server.add_secure_port("127.0.0.1:0", mutual_tls(CertificateFiles(tls, "orchestrator")))
    await server.start()
    print(f"{READY}127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
