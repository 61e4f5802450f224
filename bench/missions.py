"""Missions per second: a one-file write from proposal to receipt, against the floor of that write.

The floor is what such a mission can not do without: an exclusive create of 1 KiB with fsync, and three SQLite commits
(WAL, synchronous=FULL), all in one process and without dry run, signature, gate or receipt.
"""

import asyncio
import os
import sqlite3
import tempfile
import threading
import time
from pathlib import Path

from bench.measure import interleaved, note, tell
from bench.services import running_services
from client.api import GonogoClient
from client.signing import Signer
from client.state import StateDirectory
from gonogo.signatures import load_signing_key
from gonogo.v1 import evidence_pb2, plan_pb2

CONTENT = "x" * 1024
MARKS = {1: 0.12, 16: 0.12}
ROUNDS = 7
PER_CALLER = {1: 60, 16: 15}


class Floor:
    """The floor of a one-file write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(folder / "floor.db", check_same_thread=False, isolation_level=None)
        self._connection.execute("pragma journal_mode=wal")
        self._connection.execute("pragma synchronous=full")
        self._connection.execute("create table record (body text)")
        self._number = 0

    def run(self, callers: int, writes: int) -> float:
        """Let `callers` threads make `writes` writes each; return the seconds."""
        threads = [threading.Thread(target=self._writes, args=(writes,)) for _ in range(callers)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - started

    def _writes(self, count: int) -> None:
        for _ in range(count):
            with self._lock:
                self._number += 1
                number = self._number
            self._create(self._folder / f"f{number}")
            for _ in range(3):
                with self._lock:
                    self._connection.execute("insert into record values (?)", (CONTENT,))

    @staticmethod
    def _create(path: Path) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(fd, CONTENT.encode())
        os.fsync(fd)
        os.close(fd)


class Missions:
    """One-file missions through the real services."""

    def __init__(self, client: GonogoClient, signer: Signer) -> None:
        self._client = client
        self._signer = signer
        self._number = 0

    async def run(self, callers: int, missions: int) -> float:
        """Let `callers` callers take `missions` missions each to their receipts; return the seconds."""
        started = time.perf_counter()
        await asyncio.gather(*(self._caller(missions) for _ in range(callers)))
        return time.perf_counter() - started

    async def _caller(self, missions: int) -> None:
        for _ in range(missions):
            await self.one()

    async def one(self) -> None:
        """Take one mission from proposal to receipt."""
        self._number += 1
        step = plan_pb2.Step(create_file=plan_pb2.CreateFile(path=f"f{self._number}", content=CONTENT))
        draft = plan_pb2.PlanDraft(objective="Write one file", workspace="work", steps=[step])
        proposed = await self._client.propose(draft, dry_run=True)
        approval = self._client.approval(self._client.verified(proposed), self._signer)
        outcome = evidence_pb2.OUTCOME_UNSPECIFIED
        async for part in self._client.execute(proposed.mission.mission_id, approvals=[approval]):
            if part.HasField("receipt"):
                outcome = part.mission.outcome
        if outcome != evidence_pb2.OUTCOME_SUCCESS:
            message = f"a mission ended with outcome {outcome}"
            raise RuntimeError(message)


def main() -> None:
    """Measure at 1 and 16 callers."""
    with running_services() as services, tempfile.TemporaryDirectory(prefix="gonogo-floor-") as folder:
        floor = Floor(Path(folder))
        signer = Signer(key=load_signing_key((services.state / "keys" / "approver").read_bytes()), person="owner")
        with asyncio.Runner() as runner:
            client = runner.run(_connected(services.state))
            missions = Missions(client, signer)
            for callers, each in PER_CALLER.items():
                note(f"missions, {callers} callers")
                compared = interleaved(
                    lambda callers=callers, each=each: runner.run(missions.run(callers, each)),  # type: ignore[misc]  # bound now
                    lambda callers=callers, each=each: floor.run(callers, each),  # type: ignore[misc]  # bound now
                    ROUNDS,
                )
                total = callers * each
                tell(
                    f"missions_{callers}",
                    per_second=total / sorted(compared.subject)[ROUNDS // 2],
                    floor_per_second=total / sorted(compared.floor)[ROUNDS // 2],
                    share_of_floor=compared.share_of_floor_rate,
                    asked=MARKS[callers],
                )
            runner.run(client.close())


async def _connected(state: Path) -> GonogoClient:
    return GonogoClient.connect(StateDirectory(root=state))


if __name__ == "__main__":
    main()
