"""A program of the operator's that proposes repairs, a model's client for instance: JSON in, a plan draft out.

It gets what is known of the failure on its standard input and answers with a plan draft in ProtoJSON, or with nothing.
What it says is a proposal like anybody's: it has its own dry run and its own approval. A program that fails, takes too
long or answers with something else is said in the log, and the proposer that needs no model is asked instead.
"""

import asyncio
import difflib
import json
import logging
import os
import select
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from gonogo.v1 import plan_pb2
from orchestrator.adapters.field_mapper import message_map
from orchestrator.domain.errors import ContractError, OrchestratorError
from orchestrator.domain.findings import FoundChange, FoundNode
from orchestrator.domain.plan import PlanDraft
from orchestrator.service.ports import RepairCase, RepairProposer

SECONDS: Final = 120
MAX_ANSWER: Final = 4 << 20
MAX_DIFF: Final = 64 * 1024
MAX_COMPARED: Final = 256 * 1024
"""Bytes of a file whose change is told as a diff."""
MAX_DIFFS: Final = 1 << 20
"""Characters of all diffs together."""
MAX_READ: Final = 32 << 20
"""Bytes of contents after which no more are read."""
PART: Final = 1 << 16
LOOK_SECONDS: Final = 0.05

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairCommand:
    """`RepairProposer` that asks a program, and another proposer where the program has nothing to say."""

    command: str
    """Program and arguments as one line, split as a shell would; no shell runs it."""
    otherwise: RepairProposer
    seconds: float = SECONDS

    async def propose(self, case: RepairCase) -> PlanDraft | None:
        """Return what the program proposes."""
        asked = json.dumps(await _told(case), ensure_ascii=False)
        try:
            answer = await asyncio.to_thread(self._run, asked)
            draft = _draft(answer)
        except (OSError, ValueError, RecursionError, subprocess.SubprocessError, ContractError) as error:
            _log.warning("the repair command failed: %s", error)
            draft = None
        return draft if draft is not None else await self.otherwise.propose(case)

    def _run(self, asked: str) -> bytes:
        """Run the program; with it ends all that it started, and it is read no further than it may say."""
        with tempfile.TemporaryFile() as given:  # nobody waits for a program to read
            given.write(asked.encode())
            given.seek(0)
            program = subprocess.Popen(
                shlex.split(self.command), stdin=given, stdout=subprocess.PIPE, start_new_session=True
            )
        try:
            answer = self._answer(program)
        finally:
            _end(program)
        if program.returncode:
            raise subprocess.CalledProcessError(program.returncode, "the repair command")
        return answer

    def _answer(self, program: "subprocess.Popen[bytes]") -> bytes:
        """Return what a program says until it ends.

        Raises:
            ValueError: it says too much.
            subprocess.SubprocessError: it takes too long.
        """
        assert program.stdout is not None  # noqa: S101 - it was made with a pipe
        deadline = time.monotonic() + self.seconds
        said, pipe, readable = bytearray(), program.stdout.fileno(), select.poll()
        readable.register(pipe, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            ended = _has_ended(program)
            if readable.poll(0 if ended else min(left, LOOK_SECONDS) * 1000):
                part = os.read(pipe, PART)
                said += part
                if len(said) > MAX_ANSWER:
                    text = f"it answered with more than {MAX_ANSWER} bytes"
                    raise ValueError(text)
                if not part:
                    readable.unregister(pipe)
            elif ended:  # what it left behind may hold the pipe, and has no say
                return bytes(said)
        raise subprocess.TimeoutExpired("the repair command", self.seconds)


def _has_ended(program: "subprocess.Popen[bytes]") -> bool:
    """Tell whether a program is over. It is not reaped yet: until then nobody else's process group has its number."""
    return os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(program: "subprocess.Popen[bytes]") -> None:
    """End a program with all that it started, where it is not over."""
    with suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    if program.stdout is not None:
        program.stdout.close()
    program.wait()


def _draft(answer: bytes) -> PlanDraft | None:
    if not answer.strip():
        return None
    said = json.loads(answer)
    json.dumps(said, ensure_ascii=False).encode()  # raises where it holds half a character, of which no text is made
    draft = message_map(PlanDraft, plan_pb2.PlanDraft).from_json(said)
    return draft if draft.steps else None


async def _told(case: RepairCase) -> dict[str, Any]:
    """Return what the program is told; nothing in it is more than data."""
    failure = case.failure
    return {
        "mission_id": case.mission.mission_id,
        "objective": case.mission.objective,
        "plan": message_map(PlanDraft, plan_pb2.PlanDraft).to_json(case.plan),
        "committed": sorted(case.standing),
        "failure": None
        if failure is None
        else {"step_id": failure.step_id, "reason": failure.reason, "message": failure.message, "path": failure.path},
        "problems": [
            {"step_id": one.step_id, "path": one.path, "reason": one.reason, "message": one.message}
            for one in case.findings.problems
        ],
        "changes": await _changes(case),
        "tests": [
            {"step_id": step.step_id, "name": one.name, "status": one.status.value, "message": one.message}
            for step in case.findings.steps
            for one in step.cases
        ],
        "output": case.output or "".join(step.output for step in case.findings.steps if not step.success),
    }


async def _changes(case: RepairCase) -> list[dict[str, str]]:
    """Return the changes with their diffs, for as long as these are not too much."""
    told: list[dict[str, str]] = []
    diffs, read = MAX_DIFFS, MAX_READ

    async def text(node: FoundNode | None) -> str:
        nonlocal read
        data = b"" if node is None or not node.digest else await case.read_object(node.digest)
        read -= len(data)
        return data.decode()

    for step in case.findings.steps:
        for change in step.changes:
            diff = await _diff(change, text) if diffs > 0 and read > 0 else ""
            diffs -= len(diff)
            told.append({"step_id": step.step_id, "path": change.path, "kind": change.kind.value, "diff": diff})
    return told


async def _diff(change: FoundChange, text: Callable[[FoundNode | None], Awaitable[str]]) -> str:
    """Return a change as a unified diff; empty where its contents are not text, are large, or are not kept."""
    try:
        old, new = await text(change.old), await text(change.new)
    except (OrchestratorError, UnicodeDecodeError):
        return ""
    if max(len(old), len(new)) > MAX_COMPARED:
        return ""
    return await asyncio.to_thread(_unified, change.path, old, new)


def _unified(path: str, old: str, new: str) -> str:
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    return "".join(difflib.unified_diff(before, after, f"a/{path}", f"b/{path}"))[:MAX_DIFF]
