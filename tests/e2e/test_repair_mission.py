"""Edit, test, repair, on a small project with a test suite: what breaks it goes back under a plan of its own.

The project computes prices; what its tests hold it to is a table of the operator, which commands see and no fingerprint
holds. So an edit that was right when it was tried can be wrong when it is executed.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client.exit_codes import ExitCode
from gonogo import sealing
from gonogo.v1 import evidence_pb2, orchestrator_pb2
from tests.e2e.by_hand import pair
from tests.e2e.installation import Installation
from tests.e2e.wire_house import desk

pytestmark = pytest.mark.sandbox

OLD = """\
RATE = 7


def price(net: int) -> int:
    return net + net * RATE // 100
"""
NEW_RATE = {"replace_text": {"path": "shop.py", "old": "RATE = 7", "new": "RATE = 19"}}
TESTS = """\
import json
import pathlib

import shop


def test_price() -> None:
    rate = json.loads(pathlib.Path({table!r}).read_text())
    assert shop.RATE == rate, f"shop.py line 1 says {{shop.RATE}}, the table says {{rate}}"
    assert shop.price(1000) == 1000 + 10 * rate


def test_free() -> None:
    assert shop.price(0) == 0
"""
SUITE = {
    "run_tests": {
        "argv": [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junit-xml=report.xml"],
        "junit": "report.xml",
    }
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's table of what a price is to be."""
    return tmp_path_factory.mktemp("table") / "rate.json"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Iterator[Installation]:
    """Both services; commands see the interpreter that the tests run with, and the table."""
    tools = sorted({Path(sys.prefix), Path(sys.base_prefix)})
    with pair(tmp_path_factory.mktemp("repair"), tools=[*tools, table.parent]) as both:
        yield both.house


@pytest.fixture
def project(site: Path, table: Path) -> Path:
    """The project, as it was before anybody edited it."""
    for path in site.iterdir():
        path.unlink()
    (site / "shop.py").write_text(OLD)
    (site / "test_shop.py").write_text(TESTS.format(table=str(table)))
    return site


def plan(*steps: dict[str, Any]) -> str:
    scope = {"max_duration_seconds": 60}
    return json.dumps({"objective": "Raise the tax", "workspace": "site", "scope": scope, "steps": list(steps)})


def approve(house: Installation, mission: str) -> None:
    """Sign what was reported last."""
    house.json("approve", mission, "--key", str(house.state / "keys" / "approver"), "--yes")


def file_of(house: Installation, mission: str) -> orchestrator_pb2.GetMissionResponse:
    """Return a mission with its sealed documents."""

    async def found() -> orchestrator_pb2.GetMissionResponse:
        async with desk(house.state) as one:
            return await one.client.get(mission)

    return asyncio.run(found())


def test_an_edit_that_fails_its_tests_pauses_and_is_repaired_under_a_plan_of_its_own(
    house: Installation, project: Path, table: Path
) -> None:
    """A repair is proposed, tried and approved; then the same execution ends green, with one receipt."""
    table.write_text("19")
    note = {"append_text": {"path": "test_shop.py", "content": "# the tax was raised\n"}}
    mission = house.approved(plan(NEW_RATE, SUITE, note))
    table.write_text("7")

    waits = house.run("execute", mission, "-o", "json")
    stands = house.json("whiteboard", mission)
    repair = house.json("repair", mission)
    before_approval = (project / "shop.py").read_text()
    approve(house, mission)
    done = house.json("execute", mission)

    assert waits.code == ExitCode.FAILED, waits.out + waits.err
    assert stands["status"] == "paused"
    assert repair["report"]["status"] == "success", repair
    assert before_approval == OLD.replace("RATE = 7", "RATE = 19")
    assert done["outcome"] == "success"
    assert (project / "shop.py").read_text() == OLD
    assert (project / "test_shop.py").read_text().endswith("# the tax was raised\n")
    assert house.json("verify", mission)["valid"]
    file = file_of(house, mission)
    receipt = sealing.open_sealed(file.receipt.body, evidence_pb2.Receipt)
    assert [segment.segment for segment in receipt.segments] == [1]
    assert {step.segment for step in receipt.steps} == {0, 1}
    verdicts = [(step.segment, step.success) for step in receipt.steps if step.operation == "run_tests"]
    assert verdicts == [(0, False), (1, True)]
    failed = next(step for step in receipt.steps if step.operation == "run_tests" and not step.success)
    assert failed.test_cases[0].name.endswith("test_price")


def test_a_dry_run_that_fails_offers_the_repair_before_anybody_approved(
    house: Installation, project: Path, table: Path
) -> None:
    """The plan is replaced by one without the edit that broke the tests, and only that one is ever approved."""
    table.write_text("7")
    mission = house.json("propose", "-f", "-", text=plan(NEW_RATE, SUITE))["mission_id"]

    tried = house.run("dry-run", mission, "-o", "json")
    repair = house.json("repair", mission)
    approve(house, mission)
    done = house.json("execute", mission)

    assert tried.code == ExitCode.FAILED
    assert repair["report"]["status"] == "success"
    assert done["outcome"] == "success"
    assert (project / "shop.py").read_text() == OLD
    assert house.json("verify", mission)["valid"]
    file = file_of(house, mission)
    receipt = sealing.open_sealed(file.receipt.body, evidence_pb2.Receipt)
    assert (len(receipt.segments), receipt.plan_digest) == (0, file.mission.plan_digest)
