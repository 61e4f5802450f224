"""``python -m orchestrator``: serve, export, replay, audit, states."""

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.states import states_page
from orchestrator.service.event_log_errors import EventLogError
from orchestrator.settings import Settings, read_settings

EXIT_ERROR: Final = 1
WATCHDOG_SECONDS: Final = 15.0
SWITCH_SECONDS: Final = 0.0005
"""For how long one thread may keep the interpreter from another that wants it.

A commit in the writer's thread lets go of the interpreter at each of its statements. With Python's own 5 ms it waits
that long again and again behind a busy event loop, and everybody whose append is in it waits along.
"""
PR_SET_PDEATHSIG: Final = 1


def main() -> int:
    """Run one command; return the exit code."""
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = read_settings(sys.argv[1:], os.environ)
    try:
        return COMMANDS[settings.command](settings)
    except (OrchestratorError, EventLogError, OSError) as error:
        remedy = getattr(error, "remedy", "Run `gonogo init`, or check the path and its permissions.")
        reason = getattr(error, "reason", "INTERNAL")
        line = {"code": "ERROR", "reason": str(reason), "message": str(error), "remedy": remedy}
        sys.stderr.write(json.dumps(line) + "\n")
        return EXIT_ERROR


def serve(settings: Settings) -> int:
    """Serve until a signal says to stop."""
    if settings.die_with_parent:
        _die_with_parent()
    sys.setswitchinterval(SWITCH_SECONDS)
    asyncio.run(_serve(settings))
    return 0


def export(settings: Settings) -> int:
    """Print the log, one JSON object in a line."""
    from orchestrator.adapters.event_log_reader import SqliteEventReader  # noqa: PLC0415 - only this command needs it
    from orchestrator.service.event_log_checks import export_lines  # noqa: PLC0415 - only this command needs it

    with SqliteEventReader(settings.database) as reader, contextlib.suppress(BrokenPipeError):
        for line in export_lines(reader):
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0


def replay(settings: Settings) -> int:
    """Fold the log into an empty database and compare the digests, or show one mission as it once stood."""
    if settings.mission:
        found = _state_at(settings)
        _show(settings, found)
        return EXIT_ERROR if found["broken_at"] else 0
    found = asyncio.run(_replay(settings.database))
    _show(settings, found)
    return 0 if found["equal"] else EXIT_ERROR


def audit(settings: Settings) -> int:
    """Check the audit log whole, or forget what is kept of the executor's."""
    found = _audit_check(settings) if settings.action == "check" else asyncio.run(_audit_forget(settings.database))
    _show(settings, found)
    return EXIT_ERROR if found.get("faults") else 0


def states(_settings: Settings) -> int:
    """Print the page of the mission's states."""
    sys.stdout.write(states_page())
    return 0


COMMANDS: Final[Mapping[str, Callable[[Settings], int]]] = {
    "serve": serve,
    "export": export,
    "replay": replay,
    "audit": audit,
    "states": states,
}


async def _serve(settings: Settings) -> None:
    # gRPC reads its environment when it is first imported, which `main` has prepared.
    from orchestrator.bootstrap import Service  # noqa: PLC0415 - see above

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    service = Service(settings)
    found = await service.start()
    listening = {"address": found.calls, "orchestrator_tokens": found.tokens, "health": found.health}
    told = {name: address for name, address in listening.items() if address}
    if settings.ready_file is not None:
        _write_ready(settings.ready_file, told)
    logging.getLogger("orchestrator").info("serving: %s", told)
    _keep_what_is_loaded()
    await stopping.wait()
    _watch_the_exit()
    await service.stop()


async def _replay(database: Path) -> dict[str, object]:
    from orchestrator.adapters.event_codec import JsonEventCodec  # noqa: PLC0415 - only this command needs it
    from orchestrator.adapters.event_log_reader import SqliteEventReader  # noqa: PLC0415 - only this command needs it
    from orchestrator.bootstrap import open_log  # noqa: PLC0415 - only this command needs it
    from orchestrator.service.replay import replay as fold_again  # noqa: PLC0415 - only this command needs it

    with tempfile.TemporaryDirectory(prefix="gonogo-replay-") as folder, SqliteEventReader(database) as live:
        empty = open_log(Path(folder) / "events.db")
        try:
            found = await fold_again(live, empty, JsonEventCodec())
        finally:
            empty.close()
    return {
        "events": found.events,
        "missions": found.missions,
        "live_digest": found.live_digest,
        "replayed_digest": found.replayed_digest,
        "broken_at": found.broken_at,
        "equal": found.equal,
    }


def _state_at(settings: Settings) -> dict[str, object]:
    from orchestrator.adapters.event_codec import JsonEventCodec  # noqa: PLC0415 - only this command needs it
    from orchestrator.adapters.event_log_reader import SqliteEventReader  # noqa: PLC0415 - only this command needs it
    from orchestrator.service.replay_until import state_at  # noqa: PLC0415 - only this command needs it

    with SqliteEventReader(settings.database) as reader:
        return state_at(reader, JsonEventCodec(), settings.mission, settings.until).as_json()


def _audit_check(settings: Settings) -> dict[str, object]:
    from orchestrator.adapters.audit_key import load_log_name  # noqa: PLC0415 - only this command needs it
    from orchestrator.adapters.event_log_reader import SqliteEventReader  # noqa: PLC0415 - only this command needs it
    from orchestrator.service.audit_check import check_all, check_kept  # noqa: PLC0415 - only this command needs it

    name = load_log_name(settings.log_key.with_suffix(".pub"))
    with SqliteEventReader(settings.database) as reader:
        checked = check_all(reader, name)
        kept = [(str(path), check_kept(reader, name, path.read_text())) for path in settings.kept]
        kept += [(one.origin, one.fault) for one in reader.witnessed()]
    return {
        "log": name.origin,
        "events": checked.events,
        "checkpoints": checked.checkpoints,
        "first_bad_event": checked.first_bad_event,
        "faults": [*checked.faults, *(f"{where}: {fault}" for where, fault in kept if fault)],
    }


async def _audit_forget(database: Path) -> dict[str, object]:
    from orchestrator.bootstrap import open_log  # noqa: PLC0415 - only this command needs it

    log = open_log(database)
    try:
        forgotten = log.witnessed()
        for kept in forgotten:
            await log.forget_witnessed(kept.origin)
    finally:
        log.close()
    return {"forgotten": [{"log": one.origin, "size": one.size, "fault": one.fault} for one in forgotten]}


def _show(settings: Settings, found: Mapping[str, object]) -> None:
    if settings.output == "json":
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        sys.stdout.write("".join(f"{name}: {value}\n" for name, value in found.items()))


def _keep_what_is_loaded() -> None:
    """Have the collector of reference cycles never look at what is loaded now.

    It stays to the end, and looking through all of it costs a call milliseconds. What a mission makes goes with its
    last reference; a higher threshold on top of this was measured and changed nothing.
    """
    gc.collect()
    gc.freeze()


def _write_ready(path: Path, addresses: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f".{path.name}.{os.getpid()}")
    written.write_text(json.dumps({**addresses, "pid": os.getpid()}) + "\n")
    written.replace(path)


def _die_with_parent() -> None:
    """Have the kernel end this process when its parent dies, also when that happens right now."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(EXIT_ERROR)


def _watch_the_exit() -> None:
    """Make sure that the process ends although a thread of a library hangs."""
    timer = threading.Timer(WATCHDOG_SECONDS, os._exit, (0,))
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    sys.exit(main())
