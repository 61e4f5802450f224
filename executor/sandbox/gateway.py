"""The one way to a network that a command can have: a port on its own loopback, served from outside.

The command's network namespace has a loopback and nothing else: no route, no interface, no name server. Before the
command starts, a socket is made in that namespace that listens on the loopback, and its descriptor is handed to the
executor. So what connects to the port inside is accepted outside, by the proxy, and there is nothing in between: no
process inside that a command could end or take over, no socket in the file system, and nothing left when both are
closed.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

from executor.sandbox import listen_inside
from executor.sandbox.command import RunningCommand
from executor.sandbox.sandbox import Gateway, SandboxUnavailableError
from gonogo.safe_text import safe_line

PORT: Final = 3128
_ADDRESS: Final = f"http://127.0.0.1:{PORT}"
_NOT_BY_PROXY: Final = "localhost,127.0.0.1,::1"
_SECONDS: Final = 10.0
_LAST_WORDS_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.002
_SAID_BYTES: Final = 1000


def variables() -> dict[str, str]:
    """The variables by which programs find the proxy; some look for small letters, some for capitals."""
    found = {f"{scheme}_proxy": _ADDRESS for scheme in ("http", "https", "all")}
    found["no_proxy"] = _NOT_BY_PROXY
    return {**found, **{name.upper(): value for name, value in found.items()}}


def listener_of(pid: int, port: int = PORT) -> socket.socket:
    """Listen on the loopback of a process's network namespace.

    Raises:
        SandboxUnavailableError: it can not be entered, or is this process's own.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        helper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(listen_inside.__file__)), str(pid), str(port)],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env={},
            start_new_session=True,
        )
        theirs.close()
        ours.settimeout(_SECONDS)
        with helper:
            found = _received(ours)
            if found is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    helper.wait(_LAST_WORDS_SECONDS)
                helper.kill()
            said = b"" if helper.stderr is None else helper.stderr.read()[-_SAID_BYTES:]
    if found is None:
        raise SandboxUnavailableError(
            "UNSUPPORTED",
            f"the sandbox's network can not be entered: {safe_line(said.decode('utf-8', 'replace')) or 'no answer'}",
            "leave scope.network out, or run gonogo doctor on the executor's host",
        )
    return found


def _received(channel: socket.socket) -> socket.socket | None:
    with contextlib.suppress(OSError):
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        if descriptors:
            os.set_inheritable(descriptors[0], False)
            return socket.socket(fileno=descriptors[0])
    return None


class Gate:
    """Keeps one command from starting until its gateway is served; a context manager.

    bwrap reads from `--block-fd` when everything is mounted and the loopback is up, just before the command starts.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._blocked, self._go = os.pipe2(os.O_CLOEXEC)
        self._closing = contextlib.ExitStack()
        self._closing.callback(os.close, self._blocked)
        self._going = self._closing.enter_context(contextlib.ExitStack())
        self._going.callback(os.close, self._go)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @property
    def options(self) -> Sequence[str]:
        """What bwrap is told."""
        return ("--block-fd", str(self._blocked))

    @property
    def descriptors(self) -> Sequence[int]:
        """What bwrap is given."""
        return (self._blocked,)

    def open(self, running: RunningCommand) -> None:
        """Serve the gateway and let the command start; one that ended meanwhile tells why by itself.

        Raises:
            SandboxUnavailableError: the command's network can not be entered. It is ended then.
        """
        try:
            pid = _inner(running)
            if pid is not None:
                self._closing.enter_context(self._gateway.serve(listener_of(pid)))
        except BaseException:
            running.abandon()
            raise
        self._going.close()


def _inner(running: RunningCommand) -> int | None:
    """Wait for the first process inside."""
    for _ in _looks():
        if running.ended:
            return None
        pid = running.inner_pid()
        if pid is not None:
            return pid
    raise SandboxUnavailableError(
        "UNSUPPORTED", "the sandbox did not stand in time", "run gonogo doctor on the executor's host"
    )


def _looks() -> Iterator[None]:
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until:
        yield
        time.sleep(_LOOK_SECONDS)
