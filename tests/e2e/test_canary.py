"""No secret that the executor knows comes out of it: not into a database, a log, a stream or anything that is shown."""

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from client.calls import new_request_id
from gonogo.digests import digest
from gonogo.v1 import executor_pb2
from tests.e2e.canary_house import Canaries, CanaryHouse, canary_house, cells_of, kept_in, leaks, leaks_in
from tests.e2e.wire_house import commanded, forger, plan_of, step

pytestmark = pytest.mark.long

URL_QUOTED = "import sys, urllib.parse; sys.stdout.write(urllib.parse.quote(open('conf.ini').read(), safe=''))"


def said(script: str) -> dict[str, Any]:
    return step("run_command", argv=["sh", "-c", script])


JUNIT = """
printf '<testsuite><testcase><failure>%s</failure></testcase></testsuite>' "$(sed 's/&/&amp;/' conf.ini)" > junit.xml
cat junit.xml; exit 1
"""
LOUD = (
    said("cat conf.ini"),
    said("cat conf.ini conf.ini conf.ini >&2"),
    said("base64 conf.ini"),
    said("base64 -w 0 conf.ini; tail -c +2 conf.ini | base64 -w 0; tail -c +3 conf.ini | base64 -w 0"),
    said("od -An -v -tx1 conf.ini | tr -d ' \\n'; od -An -v -tx1 conf.ini | tr -d ' \\n' | tr 'a-f' 'A-F'"),
    step("run_command", argv=["python3", "-c", URL_QUOTED]),
    said("head -c 30 conf.ini; sleep 0.3; tail -c +31 conf.ini; head -c 70 conf.ini; sleep 0.3; tail -c +71 conf.ini"),
    step("read_file", path="conf.ini"),
    step("search_files", pattern="=", path=".", literal=True),
    step("list_directory", path="."),
    step(
        "run_tests",
        argv=[
            "sh",
            "-c",
            JUNIT,
        ],
        junit="junit.xml",
        expect="fail",
    ),
    step("create_file", path="made.txt", content="done\n"),
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CanaryHouse]:
    """Both services, and an executor that knows both canaries."""
    with canary_house(tmp_path_factory.mktemp("canary"), Canaries.hatched()) as opened:
        yield opened
        assert leaks(opened, opened.state) == []  # while all is open, write-ahead logs included
        opened.stop()
        assert leaks(opened, opened.state) == []


def test_a_mission_that_prints_reads_and_finds_it_shows_it_nowhere(house: CanaryHouse) -> None:
    """Raw, in each encoding, in pieces, by each kind of step, in the dry run and in the execution."""
    mission, status = house.dry_run(plan_of(*LOUD))
    assert status == "success", house.printed[-1]
    house.approve(mission)
    assert house.json("execute", mission)["outcome"] == "success"
    house.look_at(mission)
    shown = house.run("show", mission, "-o", "json").out
    for name in ("deploy", "other"):
        assert shown.count(f"[secret {name}]") > len(LOUD) - 4
    assert leaks(house, house.state) == []


@pytest.mark.parametrize(
    ("steps", "status", "reason"),
    [
        ([said("cp conf.ini copy.ini")], "unsafe", "SECRET_EXPOSED"),
        ([said("{ head -c 100000 /dev/zero; base64 -w 0 conf.ini; } > large")], "unsafe", "SECRET_EXPOSED"),
        ([step("append_text", path="conf.ini", content="more = 1\n")], "unsafe", "SECRET_EXPOSED"),
        ([said('touch "$(sed -n "s/token = //p" conf.ini)"')], "unsafe", "SECRET_EXPOSED"),
        ([said("cat conf.ini >&2; exit 3")], "failed", "COMMAND_FAILED"),
        ([step("run_tests", argv=["sh", "-c", "cat conf.ini; exit 1"])], "failed", "TESTS_UNEXPECTED"),
    ],
)
def test_a_dry_run_that_does_not_succeed_does_not_say_it(
    house: CanaryHouse, steps: list[dict[str, Any]], status: str, reason: str
) -> None:
    """A change that holds it is refused by its path; an error repeats nothing of it."""
    mission, found = house.dry_run(plan_of(*steps))
    assert found == status
    house.run("show", mission, "-o", "table")
    house.run("diff", mission, "-o", "table")
    assert reason in house.run("show", mission, "-o", "json").out
    assert leaks(house, house.state) == []


def test_an_execution_that_fails_does_not_say_it(house: CanaryHouse) -> None:
    """Its events, its receipt and its errors are as clean as a dry run's."""
    until = int(time.time()) + 8
    script = f"cat conf.ini; cat conf.ini >&2; test $(date +%s) -lt {until}"
    mission, status = house.dry_run(plan_of(step("run_tests", argv=["sh", "-c", script])))
    assert status == "success"
    house.approve(mission)
    time.sleep(max(0.0, until + 0.5 - time.time()))
    assert house.run("execute", mission, "-o", "json").code == 6
    house.run("show", mission, "-o", "json")
    house.run("show", mission, "-o", "table")
    assert "[secret deploy]" in house.run("events", mission, "-o", "json").out
    assert leaks(house, house.state) == []


def test_nobody_can_write_one_with_a_providers_form_into_a_plan_or_a_message(house: CanaryHouse) -> None:
    """Both are refused before anything is stored, and the refusal does not repeat it."""
    token = house.canaries.of_file
    plan = plan_of(step("create_file", path="x.txt", content=f"token={token}"))
    assert house.json("propose", "-f", "-", text=plan, code=1)["reason"] == "SECRET_IN_PLAN"
    error = house.json("chat", f"in site: create x.txt with 'token={token}'", code=1)
    assert error["reason"] == "SECRET_IN_PLAN"
    house.printed = [(name.replace(token, "TOKEN"), text) for name, text in house.printed]
    assert leaks(house, house.state) == []


def test_the_whole_log_and_the_findings_do_not_say_it(house: CanaryHouse) -> None:
    """What an operator or an auditor takes out is as clean as what is in."""
    for arguments in (("export",), ("replay", "-o", "json"), ("doctor", "-o", "json"), ("list", "-o", "json")):
        house.run(*arguments)
    findings = {one["name"]: one["level"] for one in json.loads(house.run("doctor", "-o", "json").out)["findings"]}
    assert findings["executor secret deploy"] == findings["executor secret other"] == "ok"
    assert leaks(house, house.state) == []


def test_what_the_executor_sends_holds_none(house: CanaryHouse) -> None:
    """Byte by byte as an orchestrator receives it; also what it asks for by the digest of something not kept."""

    async def received() -> list[bytes]:
        async with forger(house.state) as one:
            plan = one.sealed(
                one.plan(
                    commanded("sh", "-c", "cat conf.ini; base64 -w 0 conf.ini"),
                    commanded("cp", "conf.ini", "copy.ini", step_id="copy"),
                )
            )
            request = executor_pb2.DryRunRequest(request_id=new_request_id(), plan=plan)
            sent = [message.SerializeToString() async for message in one.stub.DryRun(request)]
            name = digest((house.workspaces["site"] / "conf.ini").read_bytes())
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await one.stub.GetObject(executor_pb2.GetObjectRequest(digest=name))
            card = await one.stub.GetExecutor(executor_pb2.GetExecutorRequest())
            return [*sent, repr(caught.value).encode(), card.SerializeToString()]

    sent = asyncio.run(received())
    assert any(b"[secret deploy]" in one for one in sent)
    assert leaks_in(house.canaries, {str(number): one for number, one in enumerate(sent)}) == []


def test_a_plan_that_holds_one_in_no_form_is_refused_by_the_executor_that_knows_it(tmp_path: Path) -> None:
    """The orchestrator can not know it and keeps what its caller wrote; in the executor nothing of it is kept."""
    canaries = Canaries.hatched()
    with canary_house(tmp_path, canaries) as house:
        for content in (canaries.of_environment, base64.b64encode(canaries.of_environment.encode()).decode()):
            plan = plan_of(step("create_file", path="x.txt", content=f"token={content}"))
            mission = house.json("propose", "-f", "-", text=plan)["mission_id"]
            ran = house.run("dry-run", mission, "-o", "json")
            assert ran.code != 0
            assert json.loads(ran.err.strip().splitlines()[-1])["reason"] == "SECRET_IN_PLAN"
            assert leaks_in(canaries, {"the refusal": (ran.out + ran.err).encode()}) == []
        own = [house.state / name for name in ("executor", "anchor", "staging", "run")]
        assert leaks_in(canaries, dict(kept_in(*own))) == []


def test_an_executor_that_does_not_know_them_tells_them(tmp_path: Path) -> None:
    """These tests can fail: the very same mission leaves both everywhere where nobody said that they are secret."""
    canaries = Canaries.hatched()
    with canary_house(tmp_path, canaries, known=False) as house:
        mission, status = house.dry_run(plan_of(*LOUD))
        assert status == "success", house.printed[-1]
        copy, status = house.dry_run(plan_of(said("cp conf.ini copy.ini")))
        assert status == "success"
        house.run("show", mission, "-o", "json")
        house.run("diff", copy, "-o", "json")
        found = leaks(house, house.state)
    for form in ("raw", "hex", "HEX", "url, nothing safe", "base64 +0", "base64 +1", "base64 +2"):
        for canary in canaries:
            assert any(one.startswith(f"{form} of {canary[:4]}") for one in found), (form, canary[:4])
    for place in ("ledger.db, cells", "events.db, cells", "`gonogo show", "`gonogo diff"):
        assert any(place in one for one in found), place
    assert leaks_in(canaries, {"objects": cells_of(house.state / "executor" / "ledger.db")})
