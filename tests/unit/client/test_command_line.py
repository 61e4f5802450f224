"""The command line itself: quick to help, one form of output wherever it is asked for, no traceback."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from client.__main__ import requested_format, run_command
from client.app import COMMANDS, Group
from client.commands.arguments import read_input
from client.commands.helping import TOPICS
from client.errors import ClientError
from client.output import Format
from client.policy_cases import read_cases


@pytest.mark.parametrize("arguments", [["--help"], ["help", "exit-codes"], ["no-such-command"]])
def test_help_and_usage_load_nothing_heavy(arguments: list[str]) -> None:
    """gRPC, protobuf, cryptography and YAML are for the commands that need them."""
    program = (
        "import sys; from client.__main__ import run_command; run_command(sys.argv[1:]); "
        "heavy = {'grpc', 'google.protobuf', 'cryptography', 'yaml', 'rich'} & sys.modules.keys(); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_of_the_table_is_there_and_takes_the_common_options(capsys: pytest.CaptureFixture[str]) -> None:
    """Each one's help names -o and --state."""
    groups = {name: entry for name, entry in COMMANDS.items() if isinstance(entry, Group)}
    for name in (*COMMANDS, *(f"{name} {inner}" for name, group in groups.items() for inner in group.commands)):
        assert run_command([*name.split(), "--help"]) == 0, name
        shown = capsys.readouterr().out
        assert "--output" in shown, name
        assert "--state" in shown, name


def test_the_form_of_cases_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """What the help of `policy test` shows is a table that can be read, as it stands there."""
    assert run_command(["policy", "test", "--help"]) == 0
    shown = capsys.readouterr().out.partition("policy.\n")[2].partition("Arguments:")[0]
    table = read_cases(textwrap.dedent(shown))
    assert [case.name for case in table.cases] == ["two of sre for production"]
    assert len(table.cases[0].votes) == 2


@pytest.mark.parametrize(
    ("arguments", "form"),
    [
        (["-o", "json", "list"], Format.JSON),
        (["list", "-ondjson"], Format.NDJSON),
        (["list", "--output=json"], Format.JSON),
        (["list", "--output", "json", "-o", "table"], Format.TABLE),
        (["chat", "--", "-o", "json"], Format.TABLE),
        (["list", "-o"], Format.TABLE),
    ],
)
def test_the_form_of_output_is_known_even_when_the_rest_is_wrong(arguments: list[str], form: Format) -> None:
    """So that even a usage error is JSON for whoever asked for JSON."""
    assert requested_format(arguments) is form


def test_the_environment_names_the_form_and_the_command_line_outweighs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """GONOGO_OUTPUT holds for every command; a value that is none is refused."""
    monkeypatch.setenv("GONOGO_OUTPUT", "json")
    assert run_command(["help"]) == 0
    assert json.loads(capsys.readouterr().out)["topic"] == "exit-codes"
    assert run_command(["help", "-o", "table"]) == 0
    assert capsys.readouterr().out.startswith("code  meaning")
    monkeypatch.setenv("GONOGO_OUTPUT", "yaml")
    assert run_command(["help"]) == 2
    assert "GONOGO_OUTPUT=yaml" in capsys.readouterr().err


def test_an_unexpected_error_is_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A defect ends with 1 and says so; no traceback reaches a person."""

    def broken(*_arguments: object, **_options: object) -> None:
        message = "impossible"
        raise RuntimeError(message)

    monkeypatch.setattr("client.__main__.app", broken)
    assert run_command(["list"]) == 1
    shown = capsys.readouterr().err
    assert "RuntimeError: impossible [INTERNAL]" in shown
    assert "Traceback" not in shown


def test_an_interrupted_command_says_what_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends a command with a sentence and a code of the table."""

    def interrupted() -> str:
        raise KeyboardInterrupt

    monkeypatch.setitem(TOPICS, "exit-codes", interrupted)
    assert run_command(["help", "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().err)["reason"] == "INTERRUPTED"


def test_a_reader_that_went_away_is_no_error_message(tmp_path: Path) -> None:
    """`gonogo … | head -0` is quiet."""
    argv = f"{sys.executable} -m client help exit-codes"
    done = subprocess.run(["sh", "-c", f"{argv} | true"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["up --workspace a=.", "export", "replay", "list", "approve m-1 --yes"])
def test_a_missing_state_is_told_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """`gonogo init` makes one; commands that only need services name `gonogo up`."""
    code = run_command([*command.split(), "--state", str(tmp_path / "none"), "-o", "json"])
    error = json.loads(capsys.readouterr().err)
    assert code == 1
    assert error["reason"] in {"STATE_MISSING", "NOT_RUNNING"}
    assert "gonogo init" in error["remedy"] or "gonogo up" in error["remedy"]


def test_a_file_that_is_too_large_is_not_cut(tmp_path: Path) -> None:
    """Half a file would be told of as a spoilt one; what it has too much is said instead."""
    path = tmp_path / "bundle.json"
    path.write_bytes(b"x" * 10)
    assert read_input(str(path), 10) == b"x" * 10
    with pytest.raises(ClientError, match="more than 9 bytes") as caught:
        read_input(str(path), 9)
    assert caught.value.reason == "TOO_LARGE"
