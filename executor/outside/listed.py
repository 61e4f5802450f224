"""What the trust file lists for a workspace, found by name, and the secrets that go with it."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final, TypeVar

from executor.domain.errors import StepBlockedError
from executor.domain.far_sides import Database, McpServer
from executor.domain.redaction import Redactor
from executor.outside.installed import INSTALL
from executor.runner.outside import Setting
from executor.runner.secrets import Secrets, SecretUnavailableError
from gonogo.safe_text import excerpt, safe_line

SHOWN: Final = 300

Listed = TypeVar("Listed", McpServer, Database)


def check_installed(*packages: str) -> None:
    """Refuse where a package that the child needs is missing.

    Raises:
        StepBlockedError: says what to install.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise StepBlockedError(
            "UNSUPPORTED",
            f"this executor is installed without {missing[0]}, which the step needs",
            INSTALL,
        )


def named(listed: Sequence[Listed], name: str, what: str, setting: Setting) -> Listed:
    """Return the server or database of a name.

    Raises:
        StepBlockedError: FAR_SIDE_UNKNOWN: there is none, or it is for other workspaces; which of the two is not said.
    """
    workspace_id = setting.workspace.workspace_id
    for one in listed:
        if one.name == name and workspace_id in one.workspaces:
            return one
    raise StepBlockedError(
        "FAR_SIDE_UNKNOWN",
        f"the trust file names no {what} {excerpt(name, SHOWN)!r} for workspace {workspace_id!r}",
        f"have the executor's operator add it to the trust file, or name a {what} that is there",
    )


def secret_text(secrets: Secrets, reference: str, setting: Setting) -> str:
    """Return a secret's value as text.

    Raises:
        SecretUnavailableError: it is not this workspace's, not there, or no text.
    """
    secret = secrets.for_step(setting.workspace.workspace_id, reference)
    try:
        value = secret.value.decode()
    except UnicodeDecodeError:
        value = "\0"
    if "\0" in value:
        raise SecretUnavailableError(f"secret {secret.name} is no text", "let its source hold text alone")
    return value


def remarks(said: bytes, redactor: Redactor) -> str:
    """Return the end of what a child wrote beside its answers, to follow a message; without secrets."""
    text = redactor.data(said).decode("utf-8", "replace").strip()
    return f"; it said: {safe_line(text[-SHOWN:])}" if text else ""
