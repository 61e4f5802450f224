"""Agents for tests: OpenSSH's own, and one that answers whatever it was told to."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from client.ssh_agent import SshAgent

needs_openssh = pytest.mark.skipif(
    not all(shutil.which(name) for name in ("ssh-agent", "ssh-add", "ssh-keygen")), reason="OpenSSH is not installed"
)


@contextmanager
def openssh_agent(folder: Path, environment: Mapping[str, str], *options: str) -> Iterator[SshAgent]:
    """Run a real ssh-agent for as long as the block lasts."""
    path = folder / "agent"
    argv = ["ssh-agent", "-D", "-a", str(path), *options]
    with subprocess.Popen(argv, env=dict(environment), stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(path)
            yield SshAgent(path=path)
        finally:
            process.terminate()


@contextmanager
def scripted_agent(folder: Path, answer: bytes | None) -> Iterator[SshAgent]:
    """Serve one answer to every request and hang up; None never answers."""
    path = folder / "scripted"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=_serve, args=(server, answer), daemon=True)
        thread.start()
        try:
            yield SshAgent(path=path, list_seconds=0.3, sign_seconds=0.3)
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def add_key(agent: SshAgent, *arguments: str) -> None:
    """Run ssh-add for an agent."""
    environment = os.environ | {"SSH_AUTH_SOCK": str(agent.path)}
    subprocess.run(["ssh-add", "-q", *arguments], env=environment, check=True, capture_output=True)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def _serve(server: socket.socket, answer: bytes | None) -> None:
    while True:
        try:
            link, _ = server.accept()
        except OSError:
            return
        with link:
            length = int.from_bytes(link.recv(4), "big")
            while length > 0:
                length -= len(link.recv(length))
            if answer is None:
                time.sleep(0.5)
            else:
                link.sendall(answer)
