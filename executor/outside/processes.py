"""Programs that keep running when the step that started them is done, and when the executor is gone.

Each has a folder in the executor's state: `record.json`, written durably before the program starts; `ended.json`,
written by its supervisor; its output. A program is its supervisor's number, start time and the machine's boot: a number
that the kernel gave to somebody else since is never taken for it. What it is named by is only ever read from its own
record.

A program with a network reaches it through this process. When the executor ends, the network of such a program ends
with it, and comes back with the next one, under the lists that hold then.
"""

import json
import logging
import os
import secrets
import select
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from executor.domain.errors import ExecutorError, NotFoundError, RequestMalformedError
from executor.domain.plan import NetworkAccess, Scope
from executor.outside.command_gates import Doors
from executor.outside.durable import write_durably
from executor.outside.process_tree import ProcessIdentity, boot_id, descendants, send
from executor.runner.live_processes import MOST_LISTED, LiveProcess
from executor.sandbox.gateway import listener_of

LOG_BYTES: Final = 8 << 20
GRACE_SECONDS: Final = 10.0
_INSIST_SECONDS: Final = 12.0
_KILL_SECONDS: Final = 5.0
_RECORD: Final = "record.json"
_ENDED: Final = "ended.json"
_LOG: Final = "output.log"
_RANDOM_BYTES: Final = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """One request to end a program."""

    request_id: str
    actor: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of one program. Without a `pid` it was never started."""

    process_id: str
    key: str
    """The effect's: what a repetition is recognised by."""
    mission_id: str
    step_id: str
    workspace_id: str
    command: str
    started_at: str
    domains: tuple[str, ...] = ()
    """Its network; empty for none, or the machine's own."""
    pid: int = 0
    start: int = 0
    boot: str = ""
    inner: int = 0
    """The first process inside its namespaces, where it has a network there."""
    stops: tuple[Stopping, ...] = ()

    @property
    def identity(self) -> ProcessIdentity:
        """Its supervisor."""
        return ProcessIdentity(pid=self.pid, start=self.start, boot=self.boot)

    @property
    def runs(self) -> bool:
        """Whether its supervisor is there."""
        return self.pid > 0 and self.identity.runs


@dataclass(slots=True)
class ProcessStore:
    """The programs of one executor; the port `executor.runner.live_processes.Processes`.

    Args:
        folder: where their folders are; the executor's alone.
        doors: makes the proxies of those that have a network.
    """

    folder: Path
    doors: Doors
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _closing: threading.Event = field(default_factory=threading.Event)
    _watchers: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Give the programs that still run their network back, and forget the oldest that have ended."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        records = self._records()
        for record in records[MOST_LISTED:]:
            if not record.runs:
                shutil.rmtree(self.place(record.process_id), ignore_errors=True)
        for record in records:
            if record.runs and record.domains and record.inner:
                with suppress(ExecutorError, OSError):  # without its network it is told so by its own errors
                    self.serve(record)

    def close(self) -> None:
        """End the networks; the programs go on."""
        self._closing.set()
        for watcher in self._watchers:
            watcher.join()

    def place(self, process_id: str) -> Path:
        """Return a program's folder."""
        return self.folder / process_id

    def log_of(self, process_id: str) -> Path:
        """Return where a program's output goes."""
        return self.place(process_id) / _LOG

    def ended_of(self, process_id: str) -> Path:
        """Return where it is written down how a program ended."""
        return self.place(process_id) / _ENDED

    def running(self, key: str) -> Record | None:
        """Return the program that an effect has started and that runs still."""
        return next((one for one in self._records() if one.key == key and one.runs), None)

    def enter(self, record: Record) -> Record:
        """Put a program on record, durably, before anything of it is started; it gets its id."""
        named = replace(record, process_id=f"{record.key}-{secrets.token_hex(_RANDOM_BYTES)}".replace("/", "_"))
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.place(named.process_id).mkdir(mode=0o700)
        self.keep(named)
        return named

    def keep(self, record: Record) -> None:
        """Write a record durably."""
        write_durably(self.place(record.process_id) / _RECORD, asdict(record))

    def remove(self, process_id: str) -> None:
        """Forget a program that was never started."""
        shutil.rmtree(self.place(process_id), ignore_errors=True)

    def serve(self, record: Record) -> None:
        """Give a program its network until it ends or the executor does.

        Raises:
            SandboxUnavailableError: its namespace can not be entered.
            ProcessLookupError: it has ended.
        """
        scope = Scope(
            paths=(),
            domains=record.domains,
            network=NetworkAccess.LISTED_DOMAINS,
            max_pages=1,
            max_duration_seconds=1,
            max_bytes=None,
        )
        proxy = self.doors.proxy(scope)
        with ExitStack() as on_error:
            supervisor = record.identity.open()
            on_error.callback(os.close, supervisor)
            on_error.enter_context(proxy.serve(listener_of(record.inner)))
            held = on_error.pop_all()
        watcher = threading.Thread(
            target=self._until_end, args=(supervisor, held), name=f"network of {record.process_id}", daemon=True
        )
        with self._lock:
            self._watchers = [one for one in self._watchers if one.is_alive()]
            self._watchers.append(watcher)
        watcher.start()

    def listed(self, mission_id: str = "") -> Sequence[LiveProcess]:
        """Return the programs, the newest first."""
        found = [one for one in self._records() if not mission_id or one.mission_id == mission_id]
        return tuple(self._shown(one) for one in found[:MOST_LISTED])

    def stop(self, request_id: str, process_id: str, actor: str) -> LiveProcess:
        """End a program with everything that it started."""
        if not request_id:
            raise RequestMalformedError("MALFORMED", "the request has no id", "set request_id")
        with self._lock:
            record = self._checked(request_id, process_id, actor)
        if record.runs:  # it may take its time, in which the others are still listed
            self.end(record)
        return self._shown(record)

    def end(self, record: Record) -> None:
        """Ask a program to end, and kill it where it does not.

        Raises:
            ExecutorError: STATE_FORBIDS: something of it is still there.
        """
        try:
            supervisor = record.identity.open()
        except ProcessLookupError:
            return
        try:
            signal.pidfd_send_signal(supervisor, signal.SIGTERM)
            if not _ends(supervisor, _INSIST_SECONDS):
                _kill_tree(record.pid, supervisor)
            if not _ends(supervisor, _KILL_SECONDS):
                raise ExecutorError(
                    "STATE_FORBIDS", f"{record.process_id} does not end", "look at it on the executor's host"
                )
        except ProcessLookupError:
            return
        finally:
            os.close(supervisor)

    def _checked(self, request_id: str, process_id: str, actor: str) -> Record:
        """Return the program to be ended, with the request on record."""
        records = {one.process_id: one for one in self._records()}
        for one in records.values():
            for known in one.stops:
                if known.request_id == request_id and (one.process_id, known.actor) != (process_id, actor):
                    raise RequestMalformedError(
                        "REQUEST_REUSED", "the request's id stands for another request", "use a new one for each"
                    )
        record = records.get(process_id)
        if record is None:
            raise NotFoundError(
                "NOT_FOUND", "there is no such program", "list the programs that keep running: gonogo processes"
            )
        if all(known.request_id != request_id for known in record.stops):
            stopping = Stopping(request_id=request_id, actor=actor, at=datetime.now(UTC).isoformat())
            record = replace(record, stops=(*record.stops, stopping))
            self.keep(record)
        return record

    def _records(self) -> list[Record]:
        """Return all that can be read, the newest first."""
        with self._lock:
            found = list(self._read())
        return sorted(found, key=lambda one: one.started_at, reverse=True)

    def _read(self) -> Iterator[Record]:
        if not self.folder.is_dir():
            return
        for place in self.folder.iterdir():
            try:
                yield _record(json.loads((place / _RECORD).read_bytes()))
            except FileNotFoundError:
                continue  # its executor died before it was on record, so it was never started
            except (OSError, ValueError, TypeError, KeyError):
                log.warning("the record of the program %s can not be read", place.name)

    def _shown(self, record: Record) -> LiveProcess:
        running = record.runs
        return LiveProcess(
            process_id=record.process_id,
            mission_id=record.mission_id,
            step_id=record.step_id,
            workspace_id=record.workspace_id,
            command=record.command,
            started_at=datetime.fromisoformat(record.started_at),
            running=running,
            ended="" if running else self.ending(record),
        )

    def ending(self, record: Record) -> str:
        """Tell how a program that has ended did."""
        by = f", stopped by {record.stops[-1].actor}" if record.stops else ""
        try:
            ending = json.loads(self.ended_of(record.process_id).read_bytes())
        except (OSError, ValueError):
            if record.pid == 0:
                return "never started"
            if record.boot != boot_id():
                return "ended with the machine, which has been started anew since"
            return f"ended{by}; nobody saw how"
        return f"{ending_words(ending)}{by}"

    def _until_end(self, supervisor: int, held: ExitStack) -> None:
        with held:
            while not self._closing.is_set() and not _ends(supervisor, 0.5):
                pass


def ending_words(ending: Mapping[str, Any]) -> str:
    """Tell how a program ended."""
    if not ending["began"]:
        return "could not be started"
    return f"ended by signal {ending['signal']}" if ending["signal"] else f"ended with exit code {ending['code']}"


def _record(value: Mapping[str, Any]) -> Record:
    stops = tuple(Stopping(**one) for one in value["stops"])
    return Record(**{**value, "domains": tuple(value["domains"]), "stops": stops})


def _ends(process: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _kill_tree(pid: int, supervisor: int) -> None:
    """Kill what a supervisor that does not do it itself supervises, then the supervisor."""
    until = time.monotonic() + _KILL_SECONDS
    signal.pidfd_send_signal(supervisor, signal.SIGSTOP)
    while (left := descendants(pid)) and time.monotonic() < until:
        for one in left:
            send(one, signal.SIGKILL)
    signal.pidfd_send_signal(supervisor, signal.SIGKILL)
