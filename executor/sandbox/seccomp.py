"""The system call filter that every command runs under: shipped as a finished program, one per architecture.

The programs are built from `deploy/seccomp/policy.toml` by libseccomp, which the machine that runs them does not need.
A machine whose architecture has none runs no commands: nothing here goes on without a filter.
"""

import hashlib
import json
import platform
from dataclasses import dataclass
from importlib import resources

from executor.sandbox.sandbox import SandboxUnavailableError
from gonogo.safe_text import safe_line

_FOLDER = "filters"
_LIST = "filters.json"
_DIGEST_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class SeccompFilter:
    """A filter program of one architecture; `digest` is of its bytes."""

    name: str
    program: bytes
    digest: str

    def __str__(self) -> str:
        kind, _, hexadecimal = self.digest.partition(":")
        return f"{self.name} ({kind}:{hexadecimal[:_DIGEST_SHOWN]})"


def shipped_filter(machine: str | None = None) -> SeccompFilter:
    """The filter for a machine, by the name that uname gives its architecture; by default this one.

    Raises:
        SandboxUnavailableError: none is shipped for it, or it is not the one that was built.
    """
    machine = machine or platform.machine()
    folder = resources.files(__package__) / _FOLDER
    name = f"{machine}.bpf"
    try:
        built = json.loads((folder / _LIST).read_bytes())["filters"]
        digest = built[name]
        program = (folder / name).read_bytes()
    except KeyError:
        raise _unavailable(
            f"there is no system call filter for the architecture {safe_line(machine)!r}",
            f"run the executor on one of: {', '.join(sorted(one.removesuffix('.bpf') for one in built))}",
        ) from None
    except (OSError, ValueError) as error:
        raise _unavailable(f"the system call filter can not be read: {safe_line(str(error))}", _REINSTALL) from error
    if "sha256:" + hashlib.sha256(program).hexdigest() != digest:
        raise _unavailable(f"the system call filter {name!r} is not the one that was built", _REINSTALL)
    return SeccompFilter(name=name, program=program, digest=digest)


_REINSTALL = "install the executor again"


def _unavailable(detail: str, remedy: str) -> SandboxUnavailableError:
    return SandboxUnavailableError("UNSUPPORTED", detail, remedy)
