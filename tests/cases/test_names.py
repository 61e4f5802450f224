"""Names and words that try to be something else: they mean exactly their bytes, and are shown so that nothing hides."""

import os
import subprocess
import unicodedata
from pathlib import Path

import pytest

from client.changes import net_changes
from client.diffs import FileDiff
from client.json_form import to_json
from client.render.diffs import diffs_text
from client.render.plans import plan_text
from client.render.receipts import receipt_text
from client.render.reports import report_text
from executor.runner.executions import RefusedError
from gonogo import sealing
from gonogo.safe_text import path_bytes
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.cases.case import case
from tests.cases.case_house import (
    FAILED,
    SUCCESS,
    UNSAFE,
    CaseHouse,
    Tried,
    appended,
    case_house,
    command,
    created,
    deleted,
    listed,
    moved,
    names_of,
    python,
    read,
    searched,
    shell,
    tree_of,
)

HOSTILE = (
    b"new\nline",
    b"two\n+++ b lines",
    b"-rf",
    b"--bind",
    b"rtl\xe2\x80\xaefdp.exe",
    b"zero\xe2\x80\x8bwidth",
    b"invalid\xff\xfeutf8",
    b"half\xed\xa0\x80surrogate",
    b"x" * 255,
    "ü".encode() * 127,
    b"esc\x1b[2J\x1b]0;title\x07",
    b"bell\x07\r\x08tab\t",
    b"\x7f\xc2\x85",
    b"quote'\"`$(id)\\",
    b" blank ",
    b"...",
    b"~",
    b"*?[a]",
    b"a:b|c",
    b"%s%n{0}",
    b"\\x41",
    b"con",
    b"line\xe2\x80\xa8separator",
)
MAKE = "import os\nfor name in {names!r}:\n    os.write(os.open(name, 65, 0o644), b'old ' + name)"


def nothing_hidden(text: str) -> bool:
    """No character that a reader could overlook or be misled by; line ends are the layout's own."""
    return all(unicodedata.category(one)[0] != "C" or one == "\n" for one in text) and "\u2028" not in text


def paths_of(changes: list[evidence_pb2.Change]) -> set[bytes]:
    return {path_bytes(one.path, one.raw_path) for one in changes}


def faces_of(tried: Tried, receipt: evidence_pb2.Receipt | None = None) -> list[str]:
    """All that a person is shown of plan, report and receipt."""
    plan = sealing.open_sealed(tried.plan.body, plan_pb2.Plan)
    net = net_changes(step.changes for step in tried.report.steps)
    diffs = [FileDiff(change=change, lines=(), note="") for change in net]
    texts = [plan_text(plan, "d"), report_text(tried.report, "d"), diffs_text(diffs, coloured=False)]
    return texts if receipt is None else [*texts, receipt_text(receipt, "d")]


@case("S11")
def test_hostile_names_go_round_byte_for_byte(house: CaseHouse) -> None:
    """Made by a command: the report, the workspace, the receipt and the next report hold exactly these bytes."""
    found = house.worked(python(MAKE.format(names=HOSTILE)))
    assert paths_of(list(found.report.steps[0].changes)) == set(HOSTILE)
    receipt = house.execute(found)
    assert names_of(house.site) == set(HOSTILE)
    assert {path_bytes(one.path, one.raw_path) for one in receipt.after} == set(HOSTILE)
    for name in HOSTILE:
        assert Path(os.fsdecode(os.fsencode(house.site) + b"/" + name)).read_bytes() == b"old " + name
    again = house.worked(
        shell('for f in * .*; do test -f "$f" && echo x >> "$f"; done; rm -- ./-rf; true'), listed("."), searched("old")
    )
    assert paths_of(list(again.report.steps[0].changes)) == set(HOSTILE)
    assert again.report.steps[1].listing.count == len(HOSTILE) - 1
    house.execute(again)
    assert names_of(house.site) == set(HOSTILE) - {b"-rf"}


@case("S11")
def test_hostile_names_are_shown_safely(house: CaseHouse) -> None:
    """Every face escapes what could hide or forge: no control, bidi or invisible character, and no forged line."""
    found = house.worked(python(MAKE.format(names=HOSTILE)), listed("."), searched("old"))
    receipt = house.execute(found)
    for text in faces_of(found, receipt):
        assert nothing_hidden(text)
        assert "\n+++ b lines" not in text
    assert "new\\x0aline" in faces_of(found)[1]
    assert "rtl\\u{202e}fdp.exe" in faces_of(found)[1]
    assert "invalid\\xff\\xfeutf8" in faces_of(found)[1]
    assert to_json(found.report)


@case("S11")
@pytest.mark.parametrize(
    "name", ["-rf", "--bind", "rtl\u202efdp.exe", "x" * 255, "ü" * 127, " blank ", "$(id)", "*", "\u2028"]
)
def test_typed_steps_take_names_as_they_are(house: CaseHouse, name: str) -> None:
    """A name that a plan can spell is created, appended to, moved, read and deleted under just that name."""
    house.mission(created(name), appended(name), read(name))
    assert (names_of(house.site), (house.site / name).read_text()) == ({name.encode()}, "new\nmore\n")
    found = house.worked(moved(name, "plain"), moved("plain", name), command("cat", "./" + name), deleted(name))
    assert all(nothing_hidden(text) for text in faces_of(found, house.execute(found)))
    assert names_of(house.site) == set()


@case("S11", "X35")
def test_a_rollback_restores_hostile_names(house: CaseHouse) -> None:
    """Undone after a later step failed: the same names, bytes and times."""
    house.mission(python(MAKE.format(names=HOSTILE)))
    before = tree_of(house.site)
    (house.tools / "on").touch()
    change = shell('for f in *; do echo x >> "./$f"; done; mkdir d; mv -- ./* d/ 2>/dev/null; true')
    found = house.worked(change, house_test(house))
    (house.tools / "on").unlink()
    receipt = house.execute(found)
    assert receipt.execution_status == evidence_pb2.OUTCOME_ROLLED_BACK, receipt.errors
    assert tree_of(house.site) == before


def house_test(house: CaseHouse) -> plan_pb2.Step:
    """A test step that passes as long as the operator's tools hold the file `on`."""
    argv = ("test", "-e", str(house.tools / "on"))
    return plan_pb2.Step(run_tests=plan_pb2.RunTests(argv=argv), stage=plan_pb2.STAGE_TEST)


WORDS = (
    "--bind",
    "--ro-bind",
    "--",
    "-c",
    "--help",
    "--seccomp=3",
    "--dev-bind / /",
    "$(id)",
    "a b",
    "",
    "\n",
    "'",
    "-",
)


@case("S13")
@pytest.mark.parametrize("word", WORDS)
def test_no_word_of_a_plan_is_read_by_the_launcher(house: CaseHouse, word: str) -> None:
    """Arguments, file names, variables and folders that look like options arrive as they are, or are refused."""
    assert (
        house.worked(command("printf", "[%s]", word, "--unshare-all", word)).said()
        == f"[{word}][--unshare-all][{word}]"
    )
    said = house.worked(command("sh", "-c", 'printf "[%s]" "$VALUE"', env={"VALUE": word})).said()
    assert said == f"[{word}]"
    if word.strip("\n") and "/" not in word:
        (house.site / word).mkdir()
        assert house.worked(command("pwd", cwd=word)).said() == f"{house.site}/{word}\n"


@case("S13")
@pytest.mark.parametrize("argv0", ["--help", "-c", "--bind", "--"])
def test_a_program_that_looks_like_an_option_is_refused(house: CaseHouse, argv0: str) -> None:
    """It is never handed to a launcher; by its path it is a program like any other."""
    (house.site / argv0).write_text("#!/bin/sh\necho ran\n")
    (house.site / argv0).chmod(0o755)
    found = house.tried(command(argv0))
    assert found.report.status not in {SUCCESS, FAILED}
    assert house.worked(command(f"./{argv0}")).said() == "ran\n"


@case("S13", "X36")
@pytest.mark.parametrize("name", ["A=B", "", "A B", "A\n", "BASH_FUNC_x%%", "1A"])
def test_a_variable_that_is_no_name_is_refused(house: CaseHouse, name: str) -> None:
    """What could end up as another variable, or as none, starts nothing."""
    found = house.tried(command("true", env={name: "x"}))
    assert found.report.status not in {SUCCESS, FAILED}
    assert found.complaint


@case("X42")
def test_very_many_or_very_long_words_are_passed_or_refused(house: CaseHouse) -> None:
    """Five and twenty thousand arguments, one of 100 kB, one that no program can be given, two hundred variables."""
    many = house.worked(python("import sys; print(len(sys.argv))", *["x"] * 5_000))
    assert many.said() == "5001\n"
    more = house.tried(python("import sys; print(len(sys.argv))", *["x"] * 20_000))
    assert more.said() == "20001\n" if more.report.status == SUCCESS else "arguments" in more.complaint
    long = house.worked(python("import sys; print(len(sys.argv[1]))", "y" * 100_000))
    assert long.said() == "100000\n"
    assert house.why_not(command("echo", "z" * 200_000)) != ""
    variables = {f"V{number}": "v" * 100 for number in range(200)}
    assert house.worked(command("sh", "-c", "env | grep -c ^V", env=variables)).said() == "200\n"


@case("S13")
@pytest.mark.parametrize("folder", ["--bind", "a,b:c\\d=e", "new\nline", "sp ace", "$(id)'\"", "\u202e", "%s"])
def test_a_workspace_may_have_any_name(tmp_path: Path, folder: str) -> None:
    """No character of the workspace's own path becomes a mount option or an argument."""
    with case_house(tmp_path, site=tmp_path / folder) as house:
        house.mission(
            created("typed"), shell("pwd > where; mkdir d; echo x > d/e"), shell("rm -r d; mkdir d; test ! -e d/e")
        )
        assert (house.site / "where").read_text() == f"{house.site}\n"
        assert names_of(house.site) == {b"typed", b"where", b"d"}


@case("X36")
def test_variables_that_programs_obey_do_not_reach_the_launchers(house: CaseHouse) -> None:
    """LD_PRELOAD, PATH, BASH_ENV and the like of a plan are the command's own; the sandbox stands all the same."""
    (house.site / "evil.sh").write_text("echo evil; ulimit -c unlimited\n")
    env = {name: str(house.site / "evil.sh") for name in ("BASH_ENV", "ENV", "LD_PRELOAD", "LD_AUDIT", "PYTHONSTARTUP")}
    found = house.tried(
        command("/bin/cat", "/proc/self/status", env={**env, "PATH": "/nowhere", "IFS": "x", "PS4": "$(id)"})
    )
    assert "NoNewPrivs:\t1" in found.said()
    assert "CapEff:\t0000000000000000" in found.said()


@case("X37")
def test_names_that_differ_only_in_case_or_form_are_two_names(house: CaseHouse) -> None:
    """Where the file system tells them apart, both are kept; where it folds them, the report says unsafe."""
    names = ["README", "readme", "caf\u00e9", "cafe\u0301", "\ufb01", "fi", "K", "\u212a"]
    found = house.tried(python(f"for n in {names!r}: open(n, 'x').write(n)"))
    if found.report.status == SUCCESS:
        house.execute(found)
        assert {name: (house.site / name).read_text() for name in names} == {name: name for name in names}
    else:
        assert found.report.status == UNSAFE


@case("X38")
def test_a_path_longer_than_the_system_can_name_is_unsafe(house: CaseHouse) -> None:
    """A command can nest deeper than 4096 bytes by going step by step; the report says so, and all is as before."""
    script = "import os\nfor _ in range(40):\n    os.mkdir('d' * 200); os.chdir('d' * 200)\nopen('f', 'w').close()"
    found = house.tried(python(script))
    assert found.report.status == UNSAFE
    assert "nested" in found.complaint
    assert all(nothing_hidden(text) for text in faces_of(found))
    assert names_of(house.site) == set()


@case("X38")
def test_a_deep_tree_goes_round(house: CaseHouse) -> None:
    """Six hundred levels, below the limit, are created, changed at the bottom, copied, moved, and deleted both ways."""
    bottom = "/".join(["d"] * 600)
    try:
        house.mission(shell(f"mkdir -p {bottom}; echo x > {bottom}/f"))
        house.mission(appended(f"{bottom}/f"), shell(f"echo y >> {bottom}/f"))
        assert (house.site / bottom / "f").read_text() == "x\nmore\ny\n"
        house.mission(shell("cp -r d f"))
        house.mission(shell("rm -r f"))
        house.mission(moved("d", "e"))
        house.mission(deleted("e"))
        assert names_of(house.site) == set()
    finally:
        subprocess.run(["rm", "-rf", house.folder], check=True)  # deeper than a recursion may be


@case("X39")
def test_a_directory_of_a_hundred_thousand_names(house: CaseHouse) -> None:
    """One file in it is changed, by a step and by a command, and it is listed: in seconds, not minutes."""
    crowd = house.site / "crowd"
    crowd.mkdir()
    folder = os.open(crowd, os.O_RDONLY)
    for number in range(100_000):
        os.mknod(f"f{number}", dir_fd=folder)
    os.close(folder)
    receipt = house.mission(appended("crowd/f777"), listed("crowd"), shell("echo x >> crowd/f778; rm crowd/f779"))
    assert [len(step.actual_state_change) for step in receipt.steps] == [1, 0, 2]
    assert (crowd / "f777").read_text() == "more\n"


@case("X40")
def test_link_targets_are_bytes_and_shown_safely(house: CaseHouse) -> None:
    """A target with line feeds, escape sequences or invalid UTF-8 goes round exactly, and forges nothing."""
    targets = [b"a\nb", b"\xff\xfe", b"\x1b[31mred", "\u202etxt".encode(), b"-rf"]
    script = f"import os\nfor number, target in enumerate({targets!r}): os.symlink(target, b'l%d' % number)"
    found = house.worked(python(script))
    receipt = house.execute(found)
    assert [os.fsencode((house.site / f"l{number}").readlink()) for number in range(len(targets))] == targets
    assert all(nothing_hidden(text) for text in faces_of(found, receipt))


@case("X40")
def test_output_is_shown_safely(house: CaseHouse) -> None:
    """Escape sequences, carriage returns, bidi marks and invalid bytes in what a program says are spelt out."""
    said = b"\x1b[2J\x1b]8;;http://x\x07\rok\x08\x08 \xe2\x80\xae \xff\xfe \xe2\x80\x8b\x00 \xf3\xa0\x81\x81"
    found = house.worked(python(f"import os; os.write(1, {said!r}); os.write(2, {said!r})"))
    failed = house.tried(python(f"import os, sys; os.write(2, {said!r}); sys.exit(1)"))
    for tried in (found, failed):
        assert all(nothing_hidden(text) for text in faces_of(tried))
    assert "\\x1b[2J" in report_text(found.report, "d")


@case("X41")
def test_words_of_a_plan_are_shown_safely(house: CaseHouse) -> None:
    """Objective, description, arguments and contents can not draw over what the approver reads."""
    word = "a\x1b[1A\u202e\u200b\r\u2028b"
    plan = house.plan(command("echo", word, env={"A": word}), created("f", word), objective=word)
    plan.steps[0].description = word
    tried = house.dry_run(plan)
    assert all(nothing_hidden(text) for text in faces_of(tried))


@case("X41")
def test_a_refusal_shows_hostile_paths_safely(house: CaseHouse) -> None:
    """Paths in a drift refusal and in a receipt's errors are spelt out too."""
    house.mission(python(MAKE.format(names=HOSTILE)))
    found = house.worked(shell('for f in *; do echo x >> "./$f"; done'))
    for path in house.site.iterdir():
        path.write_text("edited")
    with pytest.raises(RefusedError) as caught:
        house.execute(found)
    refusal = sealing.open_sealed(caught.value.refusal.body, evidence_pb2.Refusal)
    assert refusal.path_count > 10
    assert nothing_hidden(refusal.message)
