"""Bad input at every door: a clear reason and a remedy, nothing changed, and the services work on.

What a person writes passes three readers, and none relies on the one before it: the client reads plan files, the
orchestrator reads drafts, the executor reads sealed plans.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from client.connection import client_error
from client.errors import ClientError, PlanFileError
from client.exit_codes import ExitCode
from client.planfile import parse
from gonogo import sealing
from gonogo.v1 import evidence_pb2, orchestrator_pb2, orchestrator_pb2_grpc, plan_pb2, sealed_pb2
from tests.e2e.installation import Installation
from tests.e2e.wire_house import (
    Desk,
    Forger,
    Refused,
    channel_to,
    created,
    desk,
    forger,
    plan_of,
    refused_from,
    step,
    untouched,
    works,
)

OUTSIDE = "PATH_OUTSIDE_WORKSPACE"
LIMIT = 1024 * 1024


@pytest.fixture
async def one(house: Installation) -> AsyncIterator[Desk]:
    """A person at work."""
    async with desk(house.state) as opened:
        yield opened


@pytest.fixture
async def bad(house: Installation) -> AsyncIterator[Forger]:
    """Somebody with the orchestrator's certificate."""
    async with forger(house.state) as opened:
        yield opened


# The client's reader: plan files.

PLAN_FILES = {
    "an unknown field": '{"objective": "x", "workspace": "site", "steps": [], "when": "now"}',
    "an unknown field of a step": plan_of(step("create_file", path="a", content="", owner="root")),
    "an unknown step kind": plan_of(step("format_disk", path="a")),
    "two kinds in one step": plan_of({**step("delete_path", path="a"), **step("create_file", path="a", content="")}),
    "a list where a text belongs": plan_of(step("create_file", path=["a"], content="")),
    "a text where a list belongs": plan_of(step("run_command", argv="ls -l")),
    "a mapping where the steps belong": '{"objective": "x", "workspace": "site", "steps": {"a": 1}}',
    "a number in quotes": plan_of(step("create_file", path="a", content=""), scope={"max_pages": "1"}),
    "a key twice": '{"objective": "x", "objective": "y", "workspace": "site", "steps": []}',
    "no workspace": '{"objective": "x", "steps": [{"delete_path": {"path": "a"}}]}',
    "no steps": '{"objective": "x", "workspace": "site", "steps": []}',
    "1,001 steps": plan_of(*(step("create_file", path=f"f{n}", content="") for n in range(1001))),
    "no YAML": "steps: [a: b: c",
    "nothing at all": "",
    "an unknown failure policy": plan_of(step("delete_path", path="a"), failure_policy="shrug"),
}


@pytest.mark.parametrize("text", PLAN_FILES.values(), ids=PLAN_FILES)
def test_a_plan_file_that_says_no_plan_is_refused_with_its_line(text: str) -> None:
    """The reader names the line, what is wrong there, and what to write instead."""
    with pytest.raises(PlanFileError) as caught:
        parse(text.encode())
    assert caught.value.reason == "PLAN_INVALID"
    assert caught.value.line >= 1
    assert caught.value.remedy


def test_the_command_tells_a_bad_plan_file_in_one_json_object(house: Installation) -> None:
    """Exit code 1, nothing on standard output, and the line, reason and remedy on standard error."""
    ran = house.run("propose", "-f", "-", "-o", "json", text=PLAN_FILES["an unknown step kind"])
    assert (ran.code, ran.out) == (ExitCode.ERROR, "")
    assert ran.error["reason"] == "PLAN_INVALID"
    assert "line 1" in ran.error["message"]
    assert "create_file" in ran.error["remedy"]


# The orchestrator's reader: drafts, as a client that checks nothing would send them.


def draft(*steps: plan_pb2.Step, **changes: Any) -> plan_pb2.PlanDraft:
    """Return a draft with steps numbered as the client numbers them."""
    return plan_pb2.PlanDraft(**{"objective": "Try it", "workspace": "site", "steps": steps, **changes})


def edits(path: str) -> list[plan_pb2.Step]:
    """Return a step of each kind that names this path in some field."""
    return [
        plan_pb2.Step(read_file=plan_pb2.ReadFile(path=path)),
        plan_pb2.Step(list_directory=plan_pb2.ListDirectory(path=path)),
        plan_pb2.Step(search_files=plan_pb2.SearchFiles(path=path, pattern="a")),
        plan_pb2.Step(create_file=plan_pb2.CreateFile(path=path, content="x")),
        plan_pb2.Step(create_directory=plan_pb2.CreateDirectory(path=path)),
        plan_pb2.Step(write_file=plan_pb2.WriteFile(path=path, content="x")),
        plan_pb2.Step(patch_file=plan_pb2.PatchFile(path=path, patch="x")),
        plan_pb2.Step(replace_text=plan_pb2.ReplaceText(path=path, old="a", new="b")),
        plan_pb2.Step(append_text=plan_pb2.AppendText(path=path, content="x")),
        plan_pb2.Step(move_path=plan_pb2.MovePath(path=path, to="there")),
        plan_pb2.Step(move_path=plan_pb2.MovePath(path="here", to=path)),
        plan_pb2.Step(delete_path=plan_pb2.DeletePath(path=path)),
        plan_pb2.Step(set_mode=plan_pb2.SetMode(path=path, mode="0644")),
        plan_pb2.Step(run_command=plan_pb2.RunCommand(argv=["true"], cwd=path)),
        plan_pb2.Step(run_tests=plan_pb2.RunTests(argv=["true"], junit=path)),
    ]


PATHS = {
    "absolute": ("/etc/passwd", OUTSIDE),
    "parent": ("../outside", OUTSIDE),
    "parent in the middle": ("a/../../outside", OUTSIDE),
    "NUL": ("a\0b", "PATH_INVALID"),
    "newline": ("a\nb", "PATH_INVALID"),
    "escape": ("a\x1b[2Jb", "PATH_INVALID"),
    "delete character": ("a\x7fb", "PATH_INVALID"),
    "long name": ("a" * 256, "PATH_INVALID"),
    "double slash": ("a//b", "PATH_INVALID"),
    "trailing slash": ("a/", "PATH_INVALID"),
}


@pytest.mark.parametrize(("path", "reason"), PATHS.values(), ids=PATHS)
async def test_a_path_that_is_none_is_refused_in_every_kind_of_step(
    house: Installation, one: Desk, bad: Forger, path: str, reason: str
) -> None:
    """The orchestrator refuses the draft, and the executor the same plan where a forger seals it."""
    (house.workspaces["site"] / "here").touch()
    before = untouched(house)
    for number, wrong in enumerate(edits(path)):
        with pytest.raises(ClientError) as caught:
            await one.client.propose(draft(wrong))
        assert caught.value.reason == reason, wrong
        assert caught.value.remedy
        wrong.step_id = f"s{number}"
        wrong.stage = plan_pb2.STAGE_EDIT
        assert await not_simulated(bad, wrong) <= {OUTSIDE, "PATH_INVALID", "PLAN_INVALID"}, wrong
    before.check()
    await works(one, house)


async def not_simulated(bad: Forger, *steps: plan_pb2.Step, **changes: object) -> set[str]:
    """Have a forged plan dry-run; return the reasons for which it was refused, or was no success."""
    try:
        report = await bad.dry_run(bad.sealed(bad.plan(*steps, **changes)))
    except grpc.aio.AioRpcError as error:
        refused = refused_from(error)
        assert refused.code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}, refused
        assert refused.remedy
        return {refused.reason}
    told = sealing.open_sealed(report.body, evidence_pb2.Report)
    assert told.status != evidence_pb2.REPORT_STATUS_SUCCESS, told
    assert all(problem.remedy for problem in told.problems)
    return {problem.reason for problem in told.problems}


def many(count: int) -> list[plan_pb2.Step]:
    """Return this many steps."""
    return [plan_pb2.Step(create_file=plan_pb2.CreateFile(path=f"f{n}", content="x")) for n in range(count)]


FINE = plan_pb2.Step(create_file=plan_pb2.CreateFile(path="fine", content="x"))
LISTED = plan_pb2.NETWORK_ACCESS_LISTED_DOMAINS
ELSEWHERE = plan_pb2.Step(fetch_url=plan_pb2.FetchUrl(url="https://example.org/"))
DRAFTS: dict[str, tuple[plan_pb2.PlanDraft, str]] = {
    "no steps": (draft(), "PLAN_INVALID"),
    "1,001 steps": (draft(*many(1001)), "PLAN_INVALID"),
    "a step of no kind": (draft(plan_pb2.Step(description="do it")), "MALFORMED"),
    "no objective": (draft(FINE, objective=""), "PLAN_INVALID"),
    "control characters in the objective": (draft(FINE, objective="x\x1b[2J"), "PLAN_INVALID"),
    "an endless objective": (draft(FINE, objective="x" * 100_000), "TOO_LARGE"),
    "no workspace": (draft(FINE, workspace=""), "PLAN_INVALID"),
    "an unknown workspace": (draft(FINE, workspace="elsewhere"), "WORKSPACE_UNKNOWN"),
    "one id for two steps": (
        draft(*(plan_pb2.Step(step_id="same", delete_path=plan_pb2.DeletePath(path=p)) for p in "ab")),
        "PLAN_INVALID",
    ),
    "a content over the limit": (
        draft(plan_pb2.Step(create_file=plan_pb2.CreateFile(path="big", content="x" * (LIMIT + 1)))),
        "TOO_LARGE",
    ),
    "bytes over the limit": (
        draft(plan_pb2.Step(write_file=plan_pb2.WriteFile(path="big", data=bytes(LIMIT + 1)))),
        "TOO_LARGE",
    ),
    "no program": (draft(plan_pb2.Step(run_command=plan_pb2.RunCommand())), "PLAN_INVALID"),
    "NUL in an argument": (draft(plan_pb2.Step(run_command=plan_pb2.RunCommand(argv=["a\0b"]))), "PLAN_INVALID"),
    "a variable with a sign": (
        draft(plan_pb2.Step(run_command=plan_pb2.RunCommand(argv=["true"], env={"A=B": "c"}))),
        "PLAN_INVALID",
    ),
    "a setuid bit": (draft(plan_pb2.Step(set_mode=plan_pb2.SetMode(path="a", mode="4755"))), "PLAN_INVALID"),
    "a mode that is none": (draft(plan_pb2.Step(set_mode=plan_pb2.SetMode(path="a", mode="rwx"))), "PLAN_INVALID"),
    "the workspace itself": (
        draft(plan_pb2.Step(delete_path=plan_pb2.DeletePath(path=".", recursive=True))),
        "PATH_INVALID",
    ),
    "a path beyond the scope": (draft(FINE, scope=plan_pb2.Scope(paths=["docs/**"])), "PATH_OUTSIDE_SCOPE"),
    "a month of waiting": (draft(FINE, pause=plan_pb2.PauseRules(deadline_seconds=32 * 86_400)), "PLAN_INVALID"),
    "domains without the network": (draft(FINE, scope=plan_pb2.Scope(domains=["example.com"])), "PLAN_INVALID"),
    "an address without the network": (draft(ELSEWHERE), "NETWORK_REFUSED"),
    "an address beyond the scope": (
        draft(ELSEWHERE, scope=plan_pb2.Scope(network=LISTED, domains=["example.com"])),
        "NETWORK_REFUSED",
    ),
    "a compensation of what is undone": (
        draft(
            plan_pb2.Step(
                create_file=plan_pb2.CreateFile(path="fine", content="x"),
                compensation=plan_pb2.Compensation(call_tool=plan_pb2.CallTool(server="a", tool="b")),
            )
        ),
        "PLAN_INVALID",
    ),
    "bytes that are no number": (draft(FINE, scope=plan_pb2.Scope(max_bytes="much")), "PLAN_INVALID"),
}


@pytest.mark.parametrize(("wrong", "reason"), DRAFTS.values(), ids=DRAFTS)
async def test_a_draft_that_may_not_be_is_refused_at_the_proposal(
    house: Installation, one: Desk, wrong: plan_pb2.PlanDraft, reason: str
) -> None:
    """No mission comes into being, and the same reason comes with a remedy."""
    before, missions = untouched(house), await one.client.list(limit=10_000)
    with pytest.raises(ClientError) as caught:
        await one.client.propose(wrong)
    assert caught.value.reason == reason
    assert caught.value.remedy
    assert await one.client.list(limit=10_000) == missions
    before.check()
    await works(one, house)


async def test_fields_that_the_contract_does_not_know_are_refused(house: Installation, one: Desk) -> None:
    """A field of a later release, at any depth, is not dropped in silence."""
    unknown = b"\xf2\x3f\x01x"  # field 1022, a text
    known = draft(FINE)
    inner = plan_pb2.PlanDraft.FromString(known.SerializeToString())
    inner.steps[0].create_file.MergeFromString(unknown)
    for wrong in (plan_pb2.PlanDraft.FromString(known.SerializeToString() + unknown), inner):
        with pytest.raises(ClientError) as caught:
            await one.client.propose(wrong)
        assert caught.value.reason in {"MALFORMED", "PLAN_INVALID"}
        assert caught.value.remedy
    await works(one, house)


async def test_an_enumeration_value_that_is_unknown_is_refused(house: Installation, one: Desk) -> None:
    """A number that names nothing does not fall back to a default."""
    wrong = draft(FINE)
    wrong.failure_policy = 77  # type: ignore[assignment]  # a number that the contract does not know
    with pytest.raises(ClientError) as caught:
        await one.client.propose(wrong)
    assert caught.value.reason in {"MALFORMED", "PLAN_INVALID"}
    assert caught.value.remedy


async def test_a_request_without_an_id_or_with_anothers_is_refused(house: Installation, one: Desk) -> None:
    """Each mutating call wants an id of its own; the same id and body is the same mission."""
    async with channel_to(house.state, identity="client", service="orchestrator") as channel:
        stub = orchestrator_pb2_grpc.MissionServiceStub(channel)
        for wrong_id in ("", "x" * 129, "a\nb"):
            request = orchestrator_pb2.ProposeMissionRequest(request_id=wrong_id, draft=draft(FINE))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ProposeMission(request)
            assert client_error(caught.value).reason == "MALFORMED"
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    first = await one.client.propose(draft(FINE), request_id="bad-input-1")
    assert await one.client.propose(draft(FINE), request_id="bad-input-1") == first
    with pytest.raises(ClientError) as reused:
        await one.client.propose(draft(FINE, objective="Something else"), request_id="bad-input-1")
    assert reused.value.reason == "REQUEST_REUSED"


# The executor's reader: sealed plans.

FORGED: dict[str, tuple[list[plan_pb2.Step], dict[str, Any], str]] = {
    "no steps": ([], {}, "PLAN_INVALID"),
    "1,001 steps": ([created(f"f{n}") for n in range(1001)], {}, "PLAN_INVALID"),
    "a content over the limit": ([created("big", "x" * (LIMIT + 1))], {}, "TOO_LARGE"),
    "another executor": ([created("a")], {"executor_id": "executor-elsewhere"}, "EXECUTOR_MISMATCH"),
    "another workspace": ([created("a")], {"workspace_id": "elsewhere"}, "WORKSPACE_UNKNOWN"),
    "half a repair plan": ([created("a")], {"segment": 1}, "PLAN_INVALID"),
    "no failure policy": ([created("a")], {"failure_policy": 0}, "MALFORMED"),
    "no mission": ([created("a")], {"mission_id": ""}, "PLAN_INVALID"),
    "a workspace id that is a path": ([created("a")], {"workspace_id": "../site"}, "WORKSPACE_UNKNOWN"),
    "a setuid bit": (
        [plan_pb2.Step(step_id="s1", stage=plan_pb2.STAGE_EDIT, set_mode=plan_pb2.SetMode(path="a", mode="4755"))],
        {},
        "UNSUPPORTED",
    ),
}


@pytest.mark.parametrize(("steps", "changes", "reason"), FORGED.values(), ids=FORGED)
async def test_a_sealed_plan_that_may_not_be_is_refused_by_the_executor_itself(
    house: Installation, bad: Forger, steps: list[plan_pb2.Step], changes: dict[str, Any], reason: str
) -> None:
    """The executor relies on nobody's checks but its own."""
    before = untouched(house)
    assert await not_simulated(bad, *steps, **changes) <= {reason, "MALFORMED"}
    before.check()


SPOILED: dict[str, Callable[[bytes], bytes]] = {
    "an unknown field": lambda body: body[:-1] + b',"urgent":true}',
    "a key twice": lambda body: body[:-1] + b',"objective":"another"}',
    "another spelling of a name": lambda body: body.replace(b'"plan_id"', b'"planId"'),
    "null": lambda body: body[:-1] + b',"message_id":null}',
    "a written-out default": lambda body: body[:-1] + b',"message_id":""}',
    "a number as text": lambda body: body.replace(b'"max_pages":1', b'"max_pages":"1"'),
    "an unknown kind": lambda body: body.replace(b'"create_file"', b'"format_disk"'),
    "no JSON": lambda body: body[:-1],
    "not UTF-8": lambda body: body[:-1] + b',"message_id":"\xff"}',
    "nothing": lambda _: b"",
    "endless brackets": lambda _: b"[" * 100_000,
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
async def test_bytes_that_are_not_the_one_text_of_a_plan_are_refused(
    house: Installation, bad: Forger, spoil: Callable[[bytes], bytes]
) -> None:
    """One text stands for a plan; whatever a lenient reader would let through is malformed."""
    plan = bad.sealed(bad.plan(created("spoiled.txt")))
    spoiled = sealed_pb2.Sealed(media_type=plan.media_type, body=spoil(plan.body))
    before = untouched(house)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await bad.dry_run(spoiled)
    refused: Refused = refused_from(caught.value)
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")
    assert refused.remedy
    before.check()
