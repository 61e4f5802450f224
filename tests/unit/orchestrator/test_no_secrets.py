"""A credential that somebody writes into anything is refused before a word of it is kept, and is not repeated."""

import dataclasses
import logging
import secrets
import string
from collections.abc import Callable, Coroutine
from contextlib import closing
from typing import Any

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.errors import OrchestratorError, Reason
from orchestrator.domain.plan import (
    Action,
    AppendText,
    CreateFile,
    PatchFile,
    PlanDraft,
    ReplaceText,
    RunCommand,
    RunTests,
    Scope,
    SearchFiles,
    Step,
    WriteFile,
)
from orchestrator.service.intake import ChatTurn
from tests.fakes.orchestrator_house import House, draft, request

TOKEN = "ghp_" + "".join(secrets.choice(string.ascii_letters) for _ in range(36))
"""Looks like a provider's; in no file but those of this run."""


def turn(text: str, spoken: str = "") -> ChatTurn:
    transcription = ev.Transcription(transcription_id="t-1", text=spoken, source="phone") if spoken else None
    return ChatTurn(session_id="", text=text, transcription=transcription, workspace_id="")


def planned(action: Action, *, described: str = "") -> PlanDraft:
    return draft(Step(description=described, action=action))


ACTIONS: dict[str, Action] = {
    "content": CreateFile(path="a.txt", content=f"token={TOKEN}\n"),
    "bytes": CreateFile(path="a.bin", data=b"\x00\xff" + TOKEN.encode()),
    "whole file": WriteFile(path="a.txt", content=TOKEN),
    "appended": AppendText(path="a.txt", content=TOKEN),
    "new text": ReplaceText(path="a.txt", old="x", new=TOKEN),
    "old text": ReplaceText(path="a.txt", old=TOKEN, new="x"),
    "patch": PatchFile(path="a.txt", patch=f"--- a\n+++ b\n@@ -1 +1 @@\n-x\n+{TOKEN}\n"),
    "path": CreateFile(path=f"{TOKEN}.txt", content=""),
    "pattern": SearchFiles(pattern=TOKEN, path="."),
    "argument": RunCommand(argv=("curl", "-H", f"Authorization: Bearer {TOKEN}"), env={}),
    "variable": RunTests(argv=("pytest",), env={"TOKEN": TOKEN}),
    "name of a variable": RunTests(argv=("pytest",), env={TOKEN: "1"}),
}
REFERENCES: dict[str, Action] = {
    "argument": RunCommand(argv=("curl", "secret://deploy"), env={}),
    "variable": RunTests(argv=("pytest",), env={"TOKEN": "secret://deploy"}),
}


async def refused(call: Coroutine[Any, Any, object], reason: Reason = Reason.SECRET_IN_PLAN) -> None:
    """Await a call that must be refused without repeating what it was given."""
    with pytest.raises(OrchestratorError) as caught:
        await call
    assert caught.value.reason is reason
    assert TOKEN not in f"{caught.value} {caught.value.__dict__}"


def kept(house: House) -> bytes:
    """Return every byte beneath the orchestrator's directory, write-ahead log included."""
    return b"".join(path.read_bytes() for path in house.folder.rglob("*") if path.is_file())


@pytest.fixture(autouse=True)
def nothing_told(caplog: pytest.LogCaptureFixture) -> Any:
    """Whatever a test does, the log does not say it."""
    caplog.set_level(logging.DEBUG)
    yield
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("name", ACTIONS)
async def test_a_plan_with_a_credential_in_any_field_is_refused(house: House, name: str) -> None:
    """Nothing of the proposal is in the log, and the next honest one is taken."""
    await refused(house.use.missions.propose(request(), planned(ACTIONS[name])))
    assert TOKEN.encode() not in kept(house)
    assert house.use.missions.page(size=9, before=None, status=None).missions == ()
    assert (await house.proposed()).mission_id


AROUND: dict[str, Callable[[], PlanDraft]] = {
    "objective": lambda: draft(objective=f"Use {TOKEN}"),
    "description": lambda: planned(CreateFile(path="a.txt", content=""), described=f"with {TOKEN}"),
    "scope": lambda: dataclasses.replace(draft(), scope=Scope(paths=(f"{TOKEN}/**",))),
}


@pytest.mark.parametrize("name", AROUND)
async def test_a_plan_with_a_credential_around_its_steps_is_refused(house: House, name: str) -> None:
    """Its objective, descriptions and scope are shown as much as its steps."""
    await refused(house.use.missions.propose(request(), AROUND[name]()))
    assert TOKEN.encode() not in kept(house)


@pytest.mark.parametrize("name", REFERENCES)
async def test_a_reference_in_a_sandboxed_step_is_refused(house: House, name: str) -> None:
    """What runs in the sandbox is given no secret, so naming one there is a mistake."""
    await refused(house.use.missions.propose(request(), planned(REFERENCES[name])), Reason.UNSUPPORTED)


@pytest.mark.parametrize(
    "said",
    [
        turn(f"create a.txt with '{TOKEN}'"),
        turn(f"what is {TOKEN}?"),
        turn("create a.txt with 'x'", spoken=f"create a text with {TOKEN}"),
    ],
)
async def test_a_message_with_a_credential_is_refused_before_it_is_kept(house: House, said: ChatTurn) -> None:
    """Neither the message, nor its transcription, nor an answer that quotes it is in the log."""
    await refused(house.intake.send(request(), said))
    assert TOKEN.encode() not in kept(house)


async def test_what_is_said_of_a_mission_is_looked_at_too(house: House) -> None:
    """The words of a rejection, of a cancellation and of an approval or denial are kept for ever."""
    mission = await house.proposed()
    await refused(house.use.missions.reject(request(), mission.mission_id, f"it holds {TOKEN}"))
    await refused(house.use.executions.cancel(request(), mission.mission_id, f"it holds {TOKEN}"))
    await refused(house.approve(mission, comment=f"use {TOKEN}"))
    assert TOKEN.encode() not in kept(house)
    assert (await house.approve(house.mission(mission.mission_id))).approvals


async def test_a_credential_that_was_kept_would_be_found(house: House) -> None:
    """These tests can fail: words that nobody refuses are in what they look through."""
    mission = await house.proposed()
    await house.use.missions.reject(request(), mission.mission_id, "it holds xyzzy-4711")
    with closing(house.log):
        assert b"xyzzy-4711" in kept(house)
