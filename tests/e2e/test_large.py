"""Large missions end to end: many changed files, and one large file, in bounded memory."""

import asyncio
import hashlib
import json
import os
from pathlib import Path

import pytest

from client.approving import fetch_verified
from client.json_form import short_name
from gonogo.v1 import evidence_pb2
from tests.e2e.installation import Installation
from tests.e2e.wire_house import Desk, desk

pytestmark = pytest.mark.long

MIB = 1024 * 1024
GIB = 1024 * MIB
MEMORY_LIMIT = 200 * MIB
CHUNK = MIB


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process ever had resident, since it began or since `forget_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    message = "no VmHWM"
    raise AssertionError(message)


def forget_peak(pid: int) -> None:
    """Have the kernel count a process's peak from now on; where it may not, it counts from the process's start."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError:
        return


def executor_pid(house: Installation) -> int:
    """Return the executor's process id."""
    return house.service_pids()[0]


async def changed_files(one: Desk, house: Installation, count: int) -> evidence_pb2.Receipt:
    """Take a mission that changes this many files in one step each, of four kinds, to its receipt."""
    site = house.workspaces["site"] / f"many-{count}"
    site.mkdir()
    for number in range(count):
        if number % 4:
            (site / f"{number:04}").write_text(f"old {number}\n")
    steps = [_change(f"{site.name}/{number:04}", number) for number in range(count)]
    plan = {"objective": f"Change {count} files", "workspace": "site", "steps": steps}
    receipt = await one.receipt(await one.approved(json.dumps(plan)))
    for number in range(count):
        path = site / f"{number:04}"
        match number % 4:
            case 0 | 1:
                assert path.read_text() == f"new {number}\n"
            case 2:
                assert not path.exists()
            case _:
                assert (path.read_text(), path.stat().st_mode & 0o777) == (f"old {number}\n", 0o600)
    return receipt


def _change(path: str, number: int) -> dict[str, object]:
    match number % 4:
        case 0:
            return {"create_file": {"path": path, "content": f"new {number}\n"}}
        case 1:
            return {"replace_text": {"path": path, "old": "old", "new": "new"}}
        case 2:
            return {"delete_path": {"path": path}}
        case _:
            return {"set_mode": {"path": path, "mode": "0600"}}


async def commanded_file(one: Desk, house: Installation, name: str, size: int) -> evidence_pb2.Receipt:
    """Take a mission whose command makes a file of this size to its receipt."""
    argv = ["dd", "if=/dev/urandom", f"of={name}", f"bs={CHUNK}", f"count={size // CHUNK}", "status=none"]
    plan = {
        "objective": "Make a large file",
        "workspace": "site",
        "scope": {"max_duration_seconds": 300},
        "steps": [{"run_command": {"argv": argv}}],
    }
    mission, report = await one.reported(json.dumps(plan))
    [change] = report.steps[0].changes
    assert (change.path, change.new.size) == (name, str(size)), short_name(report, "status")
    found = await one.client.get(mission)
    await _approve(one, mission)
    receipt = await one.receipt(mission)
    made = house.workspaces["site"] / name
    assert made.stat().st_size == size
    assert receipt.after[0].node.digest == change.new.digest == await asyncio.to_thread(_file_digest, made)
    assert found.mission.mission_id == receipt.mission_id
    return receipt


async def _approve(one: Desk, mission: str) -> None:
    """Approve what was dry-run before, as the approver's client does."""
    await one.client.approve(await fetch_verified(one.client, mission), one.signer)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def check_whole(receipt: evidence_pb2.Receipt, paths: int) -> None:
    """A success in which every path is told."""
    assert receipt.execution_status == evidence_pb2.OUTCOME_SUCCESS
    assert receipt.after_fingerprint == receipt.expected_after_fingerprint
    assert len(receipt.after) == len(receipt.before) == paths
    assert receipt.steps_failed == 0


async def test_a_mission_of_a_hundred_changed_files(house: Installation) -> None:
    """A hundred steps of four kinds, each file as the report said."""
    async with desk(house.state) as one:
        check_whole(await changed_files(one, house, 100), 100)


@pytest.mark.sandbox
async def test_a_mission_whose_command_makes_a_file_larger_than_a_message(house: Installation) -> None:
    """Sixty-five MiB are more than any message between the services holds: contents never travel with the documents."""
    async with desk(house.state) as one:
        pid = executor_pid(house)
        forget_peak(pid)
        check_whole(await commanded_file(one, house, "message.bin", 65 * MIB), 1)
        assert peak_bytes(pid) < MEMORY_LIMIT


@pytest.mark.slow
async def test_a_mission_of_a_thousand_changed_files(house: Installation) -> None:
    """As many steps as a plan may have go through from the proposal to the receipt, within the executor's memory."""
    async with desk(house.state) as one:
        receipt = await changed_files(one, house, 1000)
        check_whole(receipt, 1000)
        assert peak_bytes(executor_pid(house)) < MEMORY_LIMIT
        assert house.json("verify", receipt.mission_id)["valid"]


@pytest.mark.slow
@pytest.mark.sandbox
async def test_a_command_that_changes_a_thousand_files(house: Installation) -> None:
    """One command's thousand changes are one step, committed as they were found."""
    script = "import os; os.mkdir('made'); [open(f'made/{n:04}', 'w').write(str(n)) for n in range(1000)]"
    plan = {
        "objective": "Make many",
        "workspace": "site",
        "steps": [{"run_command": {"argv": ["python3", "-c", script]}}],
    }
    async with desk(house.state) as one:
        receipt = await one.receipt(await one.approved(json.dumps(plan)))
    check_whole(receipt, 1001)
    made = house.workspaces["site"] / "made"
    assert {path.name: path.read_text() for path in made.iterdir()} == {f"{n:04}": str(n) for n in range(1000)}


@pytest.mark.slow
@pytest.mark.sandbox
@pytest.mark.timeout(600)
async def test_a_mission_whose_command_makes_a_file_of_one_gib(house: Installation) -> None:
    """Dry run, approval, commit and receipt of one GiB, with the executor under 200 MiB all the while."""
    free = os.statvfs(house.state)
    if free.f_bavail * free.f_frsize < 5 * GIB:
        pytest.skip("needs 5 GiB of room")
    async with desk(house.state) as one:
        pid = executor_pid(house)
        forget_peak(pid)
        check_whole(await commanded_file(one, house, "large.bin", GIB), 1)
        peak = peak_bytes(pid)
        assert peak < MEMORY_LIMIT, f"the executor's peak was {peak / MIB:.0f} MiB"
    (house.workspaces["site"] / "large.bin").unlink()
