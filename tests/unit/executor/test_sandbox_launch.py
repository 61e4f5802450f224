"""How much a command's launcher is given: many hidden paths, many words, long ones."""

from pathlib import Path

import pytest

from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.launch import packed, passed
from executor.sandbox.sandbox import SandboxRefusedError, SessionRequest
from tests.conformance.sandbox_suite import LIMITS, a_command, said, shell

pytestmark = pytest.mark.sandbox


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "ws"
    root.mkdir()
    return root


def filled(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True)
    files = [folder / f"secret-{number}" for number in range(count)]
    for file in files:
        file.write_text("SECRET")
    return files


def a_request(workspace: Path, *hidden: Path) -> SessionRequest:
    paths = tuple(bytes(path.relative_to(workspace)) for path in hidden)
    return SessionRequest(workspace=workspace, workspace_id="w", limits=LIMITS, hidden=paths)


def test_hidden_paths_that_no_argument_list_holds_are_covered(workspace: Path) -> None:
    """Options of a megabyte, and as much for pid 1, are together more than a program can be started with."""
    folder = workspace.joinpath(*("n" * 250 for _ in range(14)))
    files = filled(folder, 300)
    with Bubblewrap.on_this_machine().open(a_request(workspace, *files)) as session:
        result = shell(session, "grep -rh SECRET . 2>&1 | grep -o -e SECRET -e 'Permission denied'")
    assert "SECRET" not in said(result)
    assert said(result).count("Permission denied") == len(files)


def test_more_hidden_paths_than_bwrap_takes_are_refused(workspace: Path) -> None:
    """The refusal says what the operator can do, and that helps."""
    files = filled(workspace / "keys", 3_000)
    sandbox = Bubblewrap.on_this_machine()
    with sandbox.open(a_request(workspace, *files)) as session, pytest.raises(SandboxRefusedError) as caught:
        shell(session, "true")
    assert caught.value.fault.reason == "TOO_LARGE"
    assert "folders" in caught.value.fault.remedy
    with sandbox.open(a_request(workspace, workspace / "keys")) as session:
        assert said(shell(session, "ls -A keys")) == ""


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(["x"] * 10_000, "10001 arguments"), (["x" * 200_000], "200000 bytes"), (["x" * 100_000] * 70, "bytes")],
    ids=["many", "long", "much"],
)
def test_words_that_no_program_can_be_given_are_refused(workspace: Path, words: list[str], complaint: str) -> None:
    """Before anything starts, and with what was too much."""
    with Bubblewrap.on_this_machine().open(a_request(workspace)) as session:
        with pytest.raises(SandboxRefusedError, match=complaint) as caught:
            session.run(a_command("echo", *words))
        assert caught.value.fault.reason == "TOO_LARGE"


@pytest.mark.parametrize("words", [["x"] * 8_800, ["x" * 131_071], ["x" * 100_000] * 19], ids=["many", "long", "much"])
def test_words_that_a_program_can_be_given_arrive(workspace: Path, words: list[str]) -> None:
    """Up to what the refusal names as the most, a command gets all of its words."""
    with Bubblewrap.on_this_machine().open(a_request(workspace)) as session:
        result = session.run(a_command("python3", "-c", "import sys; print(sum(map(len, sys.argv[1:])))", *words))
    assert said(result) == f"{sum(map(len, words))}\n"


def test_options_are_passed_whole() -> None:
    """Each word ends with a NUL, whatever it holds; empty ones stay."""
    with passed(packed(["--setenv", "A", "", b"\xff\n"])) as fd, open(fd, "rb", closefd=False) as file:
        assert file.read() == b"--setenv\0A\0\0\xff\n\0"
