"""Proposing a repair has bounds in time and memory, whatever files hold and whatever the operator's program does."""

import asyncio
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.repair_command import MAX_ANSWER, RepairCommand
from orchestrator.domain.plan import CreateFile, PlanDraft
from orchestrator.domain.repairs import blame, without_stretch
from orchestrator.service.ports import RepairCase
from orchestrator.service.repair_proposals import RevertingProposer
from tests.unit.orchestrator.test_repair_proposals import TESTS, case_of, digest, done, edit, failed, modified

EQUAL = b"x\n" * 100_000


async def beats(work: "asyncio.Future[PlanDraft | None]") -> tuple[PlanDraft | None, float]:
    """Wait for something; return the longest time for which the loop could do nothing else, too."""
    longest, last = 0.0, time.monotonic()
    while not work.done():
        await asyncio.sleep(0.005)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    return await work, longest


def large_case(old: bytes, new: bytes) -> RepairCase:
    steps = (edit("s1", "a.txt", new), TESTS)
    found = (done("s1", modified("a.txt", old, new)), failed("s9", "a.txt:3: wrong"))
    return case_of(steps, found, objects={digest(old): old, digest(new): new})


def test_a_file_of_equal_lines_is_compared_in_little_time() -> None:
    """Where a comparison would take for ever, the file goes back as a whole."""
    began = time.monotonic()
    old, new = EQUAL + b"end\n", b"begin\n" + EQUAL + b"more\n" + EQUAL

    assert without_stretch(old, new, [3]) == old
    assert time.monotonic() - began < 2


def test_many_changed_files_are_looked_through_in_little_time() -> None:
    """Ten thousand files that a command changed, and an output that names none of them."""
    changes = tuple(modified(f"build/object-{number}.o", b"a", b"b") for number in range(10_000))
    began = time.monotonic()
    blamed = blame([done("s1", *changes)], "nothing that anybody knows\n" * 2_000)

    assert blamed is not None
    assert blamed.change.path == "build/object-9999.o"
    assert time.monotonic() - began < 2


async def test_other_missions_go_on_while_large_files_are_compared() -> None:
    """Neither proposer keeps the loop from its work; a diff that would be too much is left out."""
    lines = b"".join(b"%d\n" % (number % 999) for number in range(60_000))
    case = large_case(lines, b"first\n" + lines[::-1].replace(b"\n", b"1\n\n"))
    command = RepairCommand(command=f"{sys.executable} -c pass", otherwise=RevertingProposer())

    draft, longest = await beats(asyncio.ensure_future(command.propose(case)))

    assert draft is not None
    assert longest < 0.5


@pytest.mark.parametrize(
    "program",
    [
        "import sys\nwhile True: sys.stdout.write('x' * 65536)",
        "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])",
    ],
    ids=["never stops printing", "leaves a child behind"],
)
async def test_a_program_that_does_not_end_is_given_up(tmp_path: Path, program: str) -> None:
    """With all that it started, in its time and at its most bytes; the other proposer is asked."""
    script = tmp_path / "propose.py"
    script.write_text(program)
    command = RepairCommand(
        command=shlex.join([sys.executable, str(script)]), otherwise=RevertingProposer(), seconds=1.0
    )
    case = large_case(b"old\n", b"new\n")
    began = time.monotonic()

    draft = await command.propose(replace(case, max_content_bytes=1 << 20))

    assert draft is not None
    assert not any(isinstance(step.action, CreateFile) for step in draft.steps)
    assert time.monotonic() - began < 10
    assert MAX_ANSWER < 1 << 26
