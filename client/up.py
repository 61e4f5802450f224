"""`gonogo up`: both services as children of one process in the foreground; they live and die with it."""

import fcntl
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from client import services
from client.errors import ClientError, StateError
from client.state import TOKEN_VARIABLE, StateDirectory

WORKSPACE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
CHECK_SECONDS = 0.1
PASSED_ON = ("orchestrator_tokens", "revocations")
"""Addresses that a service tells besides its own, and that stand under the same name in the ready file of both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpSettings:
    """What the services are started with."""

    state: StateDirectory
    workspaces: Mapping[str, Path]
    staging: Mapping[str, Path]
    tools: Sequence[Path]
    listen: str = "127.0.0.1:0"
    token_listen: str = ""
    """Where callers with tokens are served; nowhere where it is empty."""
    health: bool = False
    """Serve health in plain text too, each service on a port of its own."""
    reflection: bool = False


def run_up(
    settings: UpSettings, announce: Callable[[Mapping[str, object]], None], level: Callable[[], str | None]
) -> None:
    """Run both services until a signal asks for the end.

    Args:
        settings: what to start.
        announce: called once, with the addresses, when both are ready.
        level: asks the running services for the executor's level of isolation.

    Raises:
        ClientError: another `up` runs on this state, or a service ended by itself.
    """
    state = settings.state.require()
    os.environ.pop(TOKEN_VARIABLE, None)  # it is for calls to a running orchestrator; no child shall inherit it
    state.run.mkdir(mode=0o700, exist_ok=True)
    stopping = _stop_on_signals()
    with _only_one(state):
        state.ready_file.unlink(missing_ok=True)
        running: list[services.Service] = []
        try:
            _start_all(settings, running, stopping)
            if not stopping.is_set():
                announce(_write_ready(state, running, level))
            _watch(running, stopping)
        finally:
            state.ready_file.unlink(missing_ok=True)
            services.stop(running)


def read_pairs(values: Sequence[str], option: str) -> dict[str, Path]:
    """Read ID=PATH pairs of existing directories.

    Raises:
        ClientError: one of them is not such a pair.
    """
    found: dict[str, Path] = {}
    for value in values:
        name, separator, text = value.partition("=")
        path = Path(text).expanduser()
        if not separator or not WORKSPACE_ID.fullmatch(name) or not text:
            raise ClientError("USAGE", f"{option} {value!r} is not ID=PATH", f"write {option} site=./site")
        if name in found:
            raise ClientError("USAGE", f"{option} {name} is given twice", "give each id once")
        if not path.is_dir():
            remedy = "make the directory first, or correct the path"
            raise ClientError("WORKSPACE_INVALID", f"{option} {name}: {path} is not a directory", remedy)
        found[name] = path.resolve()
    return found


def default_tools() -> list[Path]:
    """Return where this interpreter lives, as far as the sandbox's system directories do not show it already."""
    roots = dict.fromkeys(Path(root).resolve() for root in (sys.prefix, sys.base_prefix))
    return [root for root in roots if not root.is_relative_to("/usr") and root != Path("/")]


def _start_all(settings: UpSettings, running: list[services.Service], stopping: threading.Event) -> None:
    state = settings.state
    executor = ["executor", "--state", str(state.root), "--listen", "127.0.0.1:0"]
    executor += ["--revocation-listen", "127.0.0.1:0"]
    executor += [part for name, path in settings.workspaces.items() for part in ("--workspace", f"{name}={path}")]
    executor += [part for name, path in settings.staging.items() for part in ("--staging", f"{name}={path}")]
    executor += [part for path in settings.tools for part in ("--tools", str(path))]
    extra = ["--reflection"] if settings.reflection else []
    extra += ["--health-listen", "127.0.0.1:0" if settings.health else ""]
    running.append(services.start("executor", [*executor, *extra], state.run))
    address = services.wait_ready(running[-1], stopping.is_set)
    if address is None:
        return
    orchestrator = ["orchestrator", "serve", "--state", str(state.root), "--executor", address]
    orchestrator += ["--listen", settings.listen, "--token-listen", settings.token_listen]
    running.append(services.start("orchestrator", [*orchestrator, *extra], state.run))
    services.wait_ready(running[-1], stopping.is_set)


def _write_ready(
    state: StateDirectory, running: Sequence[services.Service], level: Callable[[], str | None]
) -> Mapping[str, object]:
    told = {service.name: json.loads(service.ready_file.read_bytes()) for service in running}
    ready = {name: found["address"] for name, found in told.items()}
    ready |= {key: found[key] for found in told.values() for key in PASSED_ON if key in found}
    health = {name: found["health"] for name, found in told.items() if "health" in found}
    ready |= {"health": health} if health else {}
    ready["pid"] = os.getpid()
    new = state.ready_file.with_name("ready.json.new")
    new.write_text(json.dumps(ready) + "\n", "utf-8")
    new.replace(state.ready_file)
    return {"ready": True, **ready, "ladder_level": level()}


def _watch(running: Sequence[services.Service], stopping: threading.Event) -> None:
    while not stopping.wait(CHECK_SECONDS):
        for service in running:
            if service.process.poll() is not None:
                raise service.died()


def _stop_on_signals() -> threading.Event:
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return stopping


@contextmanager
def _only_one(state: StateDirectory) -> Iterator[None]:
    descriptor = os.open(state.run / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        message = f"gonogo up runs on {state.root} already"
        raise StateError("STATE_LOCKED", message, "use the one that runs, or end it first") from None
    else:
        yield
    finally:
        os.close(descriptor)
