"""The values of the secrets that the trust file names: read by the executor alone, kept in memory alone.

Values are read at the start and when the trust file changes, from a file or from the executor's own environment. What
can not be read is a finding, never a reason not to start: a step that asks for it is refused then. A value that was
read once stays redacted until the process ends, also after its source gave another one or none: it may still be valid
somewhere, and a command may still print it.
"""

import fcntl
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from executor.domain.errors import ExecutorError
from executor.domain.policy import SecretSource, Trust
from executor.domain.redaction import LEAST_BYTES, LEAST_DIFFERENT, MOST_BYTES, NO_SECRETS, Redactor, Secret
from executor.runner.ports import Finding
from gonogo.secret_shapes import REFERENCE

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_READ: Final = stat.S_IRGRP | stat.S_IROTH
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_ROOT: Final = 0
_SHOWN: Final = 128


class SecretUnavailableError(ExecutorError):
    """A secret that a step asks for is not there, or not for this workspace; the operator must change it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__("SECRET_UNAVAILABLE", message, remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What is known at one moment."""

    sources: Mapping[str, SecretSource]
    values: Mapping[str, Secret]
    faults: Mapping[str, SecretUnavailableError]
    redactor: Redactor
    findings: tuple[Finding, ...]


class Secrets:
    """The secrets of one executor. Every method may be called from any thread.

    Args:
        sources: the trust file's.
        environment: the executor's own.
        workspaces: the roots of what is served; commands can read what lies there.
    """

    def __init__(
        self,
        sources: Sequence[SecretSource] = (),
        *,
        environment: Mapping[bytes, bytes] | None = None,
        workspaces: Sequence[Path] = (),
    ) -> None:
        self._roots = tuple(one.resolve() for one in workspaces)
        self._environment = os.environb if environment is None else environment
        self._ever: dict[Secret, None] = {}
        self._known = self._read(sources)

    def follow(self, trust: Trust) -> None:
        """Read the values again, as a new trust file names them."""
        self._known = self._read(trust.secrets)

    @property
    def redactor(self) -> Redactor:
        """What takes every value that this process has read out of bytes and text."""
        return self._known.redactor

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Whether each secret is there, for the operator."""
        return self._known.findings

    def for_step(self, workspace_id: str, reference: str) -> Secret:
        """Return the secret that a step names, for this step alone.

        Args:
            workspace_id: where the step runs.
            reference: `secret://` and the secret's name.

        Raises:
            SecretUnavailableError: it is not on this workspace's list, or its value can not be used. The message holds
                the reference and nothing else of it.
        """
        known, name = self._known, reference.removeprefix(REFERENCE)
        source = known.sources.get(name)
        if not reference.startswith(REFERENCE) or source is None or workspace_id not in source.workspaces:
            raise SecretUnavailableError(
                f"{reference[:_SHOWN]!r} is no secret of workspace {workspace_id!r}",
                "have the executor's operator add the workspace to the secret in the trust file, or correct the name",
            )
        if name in known.faults:
            fault = known.faults[name].fault
            raise SecretUnavailableError(f"{reference[:_SHOWN]!r} can not be used now: {fault.message}", fault.remedy)
        return known.values[name]

    def _read(self, sources: Sequence[SecretSource]) -> _Known:
        values: dict[str, Secret] = {}
        faults: dict[str, SecretUnavailableError] = {}
        for source in sources:
            try:
                secret = Secret(name=source.name, value=self._value(source))
                self._ever[secret] = None
                self._check_place(source)
                values[source.name] = secret
            except SecretUnavailableError as error:
                faults[source.name] = error
        return _Known(
            sources={source.name: source for source in sources},
            values=values,
            faults=faults,
            redactor=Redactor(self._ever) if self._ever else NO_SECRETS,
            findings=tuple(_finding(source, faults.get(source.name)) for source in sources),
        )

    def _value(self, source: SecretSource) -> bytes:
        data = _of_file(Path(source.file)) if source.file else self._of_environment(source.environment)
        value = data.removesuffix(b"\n").removesuffix(b"\r") if data.endswith(b"\n") else data
        if not LEAST_BYTES <= len(value) <= MOST_BYTES:
            raise SecretUnavailableError(
                f"its value has not {LEAST_BYTES} to {MOST_BYTES} bytes",
                "use a longer secret; what is short or very long can not be kept out of what is shown",
            )
        if len(set(value)) < LEAST_DIFFERENT:
            raise SecretUnavailableError(
                f"its value has fewer than {LEAST_DIFFERENT} different bytes", "write the secret there, no placeholder"
            )
        return value

    def _check_place(self, source: SecretSource) -> None:
        """Refuse what every command of a plan can read anyway; its value is taken out of what is shown all the same."""
        places = (Path(source.file), Path(source.file).resolve()) if source.file else ()
        if any(place.is_relative_to(root) for place in places for root in self._roots):
            raise SecretUnavailableError(
                "its file lies in a workspace, where every command can read it",
                "move the file out of all workspaces and name its new place in the trust file",
            )

    def _of_environment(self, name: str) -> bytes:
        value = self._environment.get(name.encode())
        if value is None:
            raise SecretUnavailableError(
                f"the executor's environment has no {name}", "set the variable where the executor is started"
            )
        return value


def environment_of(variable: str, secret: Secret) -> dict[bytes, bytes]:
    """Return what hands a secret to one child process as a variable, to be merged into that child's environment.

    Raises:
        SecretUnavailableError: no variable can hold the value.
    """
    if b"\0" in secret.value:
        raise SecretUnavailableError(
            f"secret {secret.name} holds a NUL, which no variable can", "hand it over as a file instead"
        )
    return {os.fsencode(variable): secret.value}


@contextmanager
def inherited(secret: Secret) -> Iterator[int]:
    """Hold a descriptor from which one child process can read a secret, to be named in `pass_fds`.

    The child finds the value there, or as the file `/dev/fd/N`. It lies in memory, under no name, and nobody can
    change it. Close it here as soon as the child is started; the child's own goes with the child.
    """
    fd = os.memfd_create("secret", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, secret.value)
        os.lseek(fd, 0, os.SEEK_SET)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        yield fd
    finally:
        os.close(fd)


def _of_file(path: Path) -> bytes:
    """Read a secret's file: opened once, and what was opened is what is judged and read."""
    try:
        fd = os.open(path, _FLAGS)
    except OSError as error:
        raise SecretUnavailableError(
            f"its file can not be opened: {error.strerror}",
            "correct the path in the trust file; a symbolic link is not followed",
        ) from None
    try:
        _check(os.fstat(fd), path)
        with open(fd, "rb", buffering=0, closefd=False) as file:
            return file.read(MOST_BYTES + len(b"\r\n") + 1)
    except OSError as error:
        raise SecretUnavailableError(f"its file can not be read: {error.strerror}", "look at the disk") from None
    finally:
        os.close(fd)


def _check(found: os.stat_result, path: Path) -> None:
    """Refuse a file that somebody else could have written, or can read.

    A file of root's that others may read is as container engines mount secrets: who may read it is their choice, and
    nobody but root made it.
    """
    if not stat.S_ISREG(found.st_mode):
        raise SecretUnavailableError("its file is no regular file", "name the file itself")
    if found.st_uid not in {_ROOT, os.geteuid()}:
        raise SecretUnavailableError("its file belongs to somebody else", f"chown it to the executor's user: {path}")
    forbidden = _OTHERS_WRITE if found.st_uid == _ROOT else _OTHERS_WRITE | _OTHERS_READ
    if stat.S_IMODE(found.st_mode) & forbidden:
        raise SecretUnavailableError("its file is open to others", f"chmod 600 {path}")


def _finding(source: SecretSource, error: SecretUnavailableError | None) -> Finding:
    name = f"secret {source.name}"
    if error is None:
        return Finding(name=name, ok=True, detail=f"for {', '.join(source.workspaces)}", remedy="")
    return Finding(name=name, ok=False, detail=error.fault.message, remedy=error.fault.remedy)
