"""The container engine, and that nothing of a test is left behind."""

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from deploy.image_test.composition import Network, Service

SECONDS = 120.0
PREFIX = "gonogo-test-"


class EngineError(Exception):
    """The engine refused what it must do."""


@dataclass(slots=True, kw_only=True)
class Engine:
    """Runs containers and networks whose names begin alike, and removes those that it made, whatever happens.

    The names are always the same: what a test left behind that was killed is removed by the next one.
    """

    command: tuple[str, ...]
    run_options: tuple[str, ...]
    _containers: list[str] = field(default_factory=list)
    _networks: list[str] = field(default_factory=list)

    @classmethod
    def from_environment(cls) -> Self:
        """Take the engine that deploy/image-test.sh found."""
        command, options = (shlex.split(os.environ[name]) for name in ("IMAGE_TEST_ENGINE", "IMAGE_TEST_RUN_OPTIONS"))
        return cls(command=tuple(command), run_options=tuple(options))

    def __enter__(self) -> Self:
        for listing in (
            ["container", "ls", "--all", "--format", "{{.Names}}"],
            ["network", "ls", "--format", "{{.Name}}"],
        ):
            for left in self._try(*listing, "--filter", f"name={PREFIX}").stdout.split():
                self._try(listing[0], "rm", "--force", left)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in reversed(self._containers):
            self._try("rm", "--force", name)
        for name in reversed(self._networks):
            self._try("network", "rm", name)

    def call(self, *arguments: str) -> str:
        """Run the engine; return what it printed.

        Raises:
            EngineError: it ended with an error.
        """
        done = self._try(*arguments)
        if done.returncode:
            raise EngineError(f"{' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def add_network(self, name: str, network: Network) -> None:
        """Make a network."""
        options = ["--internal"] if network.internal else []
        options += ["--subnet", network.subnet] if network.subnet else []
        self._networks.append(self._named(name))
        self.call("network", "create", *options, self._named(name))

    def start(self, name: str, service: Service, *more: str) -> None:
        """Make a service's container and start it, on all its networks.

        One that publishes a port starts on the last network that it names and gets to the others afterwards: podman
        with CNI would else forward the port to its address on an internal network, which nobody outside can reach.
        """
        *others, (first, address) = service.networks.items()
        options = [*self.run_options, *service.options, *self._on(first, address), *more]
        self._containers.append(self._named(name))
        self.call("create", "--name", self._named(name), *options, service.image)
        connections = [["network", "connect", *_address(ip), self._named(one), self._named(name)] for one, ip in others]
        starting = [["start", self._named(name)]]
        for step in (*starting, *connections) if "--publish" in service.options else (*connections, *starting):
            self.call(*step)

    def beside(self, name: str, image: str, *arguments: str, network: str, options: Sequence[str] = ()) -> str:
        """Start one more container that stays; return its address."""
        self._containers.append(self._named(name))
        where = self._on(network, "")
        self.call(
            "run", "--detach", "--name", self._named(name), *self.run_options, *where, *options, image, *arguments
        )
        found = self.call(
            "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self._named(name)
        )
        return found.strip()

    def remove(self, name: str) -> None:
        """End a service, and remove its container."""
        self.call("stop", self._named(name))
        self.forget(name)

    def forget(self, name: str) -> None:
        """Remove a container that has ended."""
        self.call("rm", self._named(name))
        self._containers.remove(self._named(name))

    def signal(self, name: str, signal: str) -> None:
        """Send a signal to a container's first process."""
        self.call("kill", "--signal", signal, self._named(name))

    def said(self, name: str) -> str:
        """Return what a container has written."""
        done = self._try("logs", self._named(name))
        return done.stdout + done.stderr

    def runs(self, name: str) -> bool:
        """Whether a container has not ended."""
        return self.call("inspect", "--format", "{{.State.Running}}", self._named(name)).strip() == "true"

    def execute(self, name: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program in a container that runs, with this on its standard input."""
        return self._try("exec", "--interactive", self._named(name), *arguments, text=text)

    def once(
        self, image: str, *arguments: str, network: str = "", address: str = "", options: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run one more container to its end."""
        name = self._named(f"once-{len(self._containers)}")
        self._containers.append(name)
        where = self._on(network, address) if network else ["--network", "none"]
        return self._try("run", "--name", name, *self.run_options, *where, *options, image, *arguments)

    def files_of(self, image: str) -> list[str]:
        """Return the paths of all that an image holds."""
        name = self._named(f"files-{len(self._containers)}")
        self._containers.append(name)
        self.call("create", "--name", name, *self.run_options, "--network", "none", image)
        exported = subprocess.Popen([*self.command, "export", name], stdout=subprocess.PIPE)
        listed = subprocess.run(["tar", "--list"], stdin=exported.stdout, capture_output=True, text=True, check=True)
        exported.wait()
        return listed.stdout.splitlines()

    @contextlib.contextmanager
    def logs_on_error(self) -> Iterator[None]:
        """Show what the containers said, should the test end early."""
        try:
            yield
        except Exception:
            for name in self._containers:
                sys.stderr.write(f"--- {name}\n{self.said(name.removeprefix(PREFIX))}")
            raise

    def _named(self, name: str) -> str:
        return f"{PREFIX}{name}"

    def _on(self, network: str, address: str) -> list[str]:
        return ["--network", self._named(network), *_address(address)]

    def _try(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        command = [*self.command, *arguments]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=SECONDS)


def _address(address: str) -> list[str]:
    return ["--ip", address] if address else []
