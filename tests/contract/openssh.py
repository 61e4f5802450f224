"""OpenSSH's own programs, as the second opinion on signatures."""

import base64
import shutil
import subprocess
from pathlib import Path

import pytest

from client.ssh_keygen import BEGIN, END, unarmoured

needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


def armoured(blob: bytes) -> str:
    """Return a blob as the text that ssh-keygen reads."""
    text = base64.b64encode(blob).decode()
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    return "\n".join([BEGIN, *lines, END, ""])


def openssh_verifies(folder: Path, public_line: str, blob: bytes, namespace: str, message: bytes) -> bool:
    """Ask ssh-keygen -Y verify about a blob."""
    (folder / "allowed").write_text(f"owner {public_line}\n")
    (folder / "document.sig").write_text(armoured(blob))
    argv = ["ssh-keygen", "-Y", "verify", "-f", str(folder / "allowed"), "-I", "owner", "-n", namespace]
    argv += ["-s", str(folder / "document.sig")]
    return subprocess.run(argv, input=message, capture_output=True, check=False).returncode == 0


def openssh_signs(private: Path, namespace: str, message: bytes, *options: str) -> bytes:
    """Have ssh-keygen -Y sign make a blob."""
    argv = ["ssh-keygen", "-Y", "sign", "-f", str(private), "-n", namespace, *options]
    return unarmoured(subprocess.run(argv, input=message, capture_output=True, check=True).stdout)


def private_file(folder: Path, private: bytes) -> Path:
    """Write a private key as OpenSSH wants it."""
    path = folder / "key"
    path.write_bytes(private)
    path.chmod(0o600)
    return path
