"""A secret, its file, and where its value may be found."""

from pathlib import Path

import pytest

from executor.domain.policy import SecretSource
from executor.domain.redaction import Redactor, Secret

VALUE = "v3ry-s3cret-t0ken-value"
CANARY = VALUE.encode()
MARKER = "[secret deploy]"
REFERENCE = "secret://deploy"
DEPLOY = Secret(name="deploy", value=CANARY)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "deploy-token"
    path.write_text(VALUE + "\n")
    path.chmod(0o600)
    return path


def of_file(path: Path, *workspaces: str) -> SecretSource:
    return SecretSource(name="deploy", workspaces=workspaces or ("site",), file=str(path))


def leaks(folder: Path, value: bytes) -> list[str]:
    """Return the files beneath a folder that hold a value in any form."""
    redactor = Redactor([Secret(name="canary", value=value)])
    return [str(path) for path in folder.rglob("*") if path.is_file() and redactor.find(path.read_bytes())]
