"""What a caller elsewhere is given to call from."""

from pathlib import Path

import pytest

from client.__main__ import run_command
from client.state import StateDirectory
from client.witnessing import pinned_executor, pinned_orchestrator


def test_a_caller_elsewhere_is_a_witness_of_both_logs(
    shared_state: StateDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder holds the public keys of both, and no private key but the caller's own."""
    out = tmp_path / "ann"
    arguments = ["caller", "certificate", "ann", "--out", str(out), "--state", str(shared_state.root)]
    assert run_command(arguments) == 0, capsys.readouterr().err
    there = StateDirectory(root=out)
    for pinned in (pinned_executor, pinned_orchestrator):
        given, own = pinned(there), pinned(shared_state)
        assert given is not None
        assert own is not None
        assert given.line == own.line
    private = [path.name for path in sorted(out.rglob("*")) if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert private == ["client.key"]
