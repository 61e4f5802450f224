"""`make demo`: the main job on a copy of this checkout, from a chat message to a receipt, and then the refusals.

Every command and all output is real. Ends with exit code 0 only when each step came out as it should.
"""

import asyncio
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import grpc.aio

from client.api import GonogoClient
from client.connection import client_error
from client.state import StateDirectory
from gonogo.v1 import executor_pb2, executor_pb2_grpc, orchestrator_pb2
from tests.e2e.installation import Installation, Ran, installed
from tests.e2e.peer import executor_channel

ROOT = Path(__file__).resolve().parents[2]
OLD, NEW = "Nothing an agent asks for", "Nothing that an agent asks for"
MESSAGE = (
    f"in site: replace '{OLD}' with '{NEW}' in README.md, docs/architecture.md and docs/guarantees.md, "
    "then create docs/demo.md with 'Written by the demo.\\n', "
    "then delete CONTRIBUTING.md, "
    "then run: cp CHANGELOG.md docs/changes.md, "
    "then run the tests with: python3 -m pytest -q -m quick -p no:cacheprovider --junitxml=build/junit.xml"
)
SMALL_PLAN = """
objective: Write one more file
workspace: site
steps:
  - create_file: {path: docs/second.md, content: "second\\n"}
"""
OTHER_PLAN = SMALL_PLAN.replace("second", "third")
SHOWN_LINES = 60


class DemoFailedError(Exception):
    """Something did not come out as it should."""


def main() -> int:
    """Run the demo."""
    folder = Path(tempfile.mkdtemp(prefix="gonogo-demo-"))
    try:
        copy_checkout(folder / "site")
        title(
            "A copy of this checkout is the workspace. Keys, certificates and trust file are made, both services start."
        )
        with installed(folder) as house:
            tell("gonogo init && gonogo up --workspace site=./site")
            main_job(house, folder / "site")
            refusals(house)
    except DemoFailedError as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    title("Done: what was approved happened once, and nothing else happened.")
    return 0


def main_job(house: Installation, site: Path) -> None:
    """From the chat message to the verification."""
    title("1. A chat message becomes a proposed mission. Nothing has happened yet.")
    tell("gonogo chat " + shlex.quote(MESSAGE))
    proposed = house.json("chat", MESSAGE)
    print(proposed["reply"])
    mission = proposed["mission_id"]

    title("2. The dry run: every step really runs, in a copy-on-write copy with no network.")
    shown(house, "dry-run", mission)
    title("3. What the approver sees: plan, report and diff, rendered from the sealed bytes.")
    shown(house, "show", mission)
    shown(house, "diff", mission)
    expect((site / "CONTRIBUTING.md").exists(), "the dry run must not have touched the workspace")

    title("4. Unapproved, it is refused.")
    refused(house, 3, "execute", mission)

    title("5. A person signs the exact change, with an SSH key.")
    shown(house, "approve", mission, "--key", str(house.state / "keys" / "approver"), "--yes")

    title("6. The executor commits exactly those bytes.")
    shown(house, "execute", mission)
    expect(not (site / "CONTRIBUTING.md").exists(), "the approved delete must have happened")
    expect(NEW in (site / "README.md").read_text(), "the approved edit must have happened")
    expect((site / "docs/changes.md").exists(), "the command's change must have been committed")
    expect(not (site / "build").exists(), "what the tests wrote must have been thrown away")

    title("7. Whiteboard, trace and verification.")
    for command in ("whiteboard", "trace", "verify"):
        shown(house, command, mission)

    title("8. A second execution is refused.")
    refused(house, 8, "execute", mission)


def refusals(house: Installation) -> None:
    """A compromised orchestrator swaps the plan: it holds the real certificate, and it does not help."""
    title("9. Another plan under an approved mission's approval is refused by the executor itself.")
    mission = house.approved(SMALL_PLAN)
    other = house.json("propose", "-f", "-", text=OTHER_PLAN)["mission_id"]
    error = asyncio.run(swapped(house.state, mission, other))
    print(f"refused: {error.reason}: {error.message}\nremedy: {error.remedy}")
    expect(error.reason == "PLAN_MISMATCH", f"a swapped plan must be refused as PLAN_MISMATCH, not {error.reason}")
    expect(not (house.workspaces["site"] / "docs/third.md").exists(), "the swapped plan must not have run")
    title("The mission itself was not used up by that: it still executes.")
    shown(house, "execute", mission)


async def swapped(state: Path, mission: str, other: str) -> Any:
    """Ask the executor, with the orchestrator's own certificate, to run another plan under a mission's approval."""
    async with GonogoClient.connect(StateDirectory(root=state)) as client:
        real: orchestrator_pb2.GetMissionResponse = await client.get(mission)
        swap = (await client.get(other)).plan
    async with executor_channel(state) as channel:
        request = executor_pb2.ExecuteRequest(
            request_id="demo-swap",
            mission_id=real.mission.mission_id,
            intent_id=real.mission.intent_id,
            workspace_id=real.mission.workspace_id,
            executor_id=real.mission.executor_id,
            plan=swap,
            report=real.report,
            approvals=real.approvals,
        )
        try:
            async for _ in executor_pb2_grpc.ExecutorServiceStub(channel).Execute(request):
                pass
        except grpc.aio.AioRpcError as error:
            return client_error(error)
    message = "the executor took a swapped plan"
    raise DemoFailedError(message)


def copy_checkout(target: Path) -> None:
    """Copy what the checkout tracks, and its history's folder, to where the demo may change it."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def shown(house: Installation, *arguments: str) -> None:
    """Run a command, show it with what it printed; it must succeed."""
    ran = run(house, *arguments)
    expect(ran.code == 0, f"gonogo {arguments[0]} ended with exit code {ran.code}")


def refused(house: Installation, code: int, *arguments: str) -> None:
    """Run a command and show it; it must be refused with that exit code."""
    ran = run(house, *arguments)
    print(f"(exit code {ran.code})")
    expect(ran.code == code, f"gonogo {arguments[0]} must end with exit code {code}, not {ran.code}")


def run(house: Installation, *arguments: str) -> Ran:
    """Run a command and show it with what it printed."""
    tell("gonogo " + " ".join(word.replace(str(house.state), "$GONOGO_STATE") for word in arguments))
    ran = house.run(*arguments)
    lines = (ran.err + ran.out).rstrip().splitlines()
    print("\n".join(lines[:SHOWN_LINES]))
    if len(lines) > SHOWN_LINES:
        print(f"… ({len(lines) - SHOWN_LINES} more lines)")
    return ran


def expect(holds: object, otherwise: str) -> None:
    """Fail the demo where something does not hold."""
    if not holds:
        raise DemoFailedError(otherwise)


def title(text: str) -> None:
    """Print what comes next."""
    print(f"\n── {text}", flush=True)


def tell(command: str) -> None:
    """Print a command as a person would type it."""
    print(f"\n$ {command}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
