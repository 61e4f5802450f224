"""One of two processes that ask for the same things at the same time; prints what came of each, as JSON.

Usage: python -m tests.e2e.racer MODE STATE FILE START

FILE holds what is asked for; FILE.ready is written once the connection stands, and the race begins when the file START
is there. Modes:

execute   each line `MISSION REQUEST_ID`, through the orchestrator
direct    each line an ExecuteRequest in base64, to the executor itself with the orchestrator's certificate
propose   each line `NAME REQUEST_ID`, a plan that creates NAME
"""

import asyncio
import base64
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc.aio

from client.errors import ClientError
from client.planfile import parse
from gonogo.v1 import executor_pb2
from tests.e2e.wire_house import Desk, Forger, desk, forger, refused_from

AT_ONCE = 16
POLL_SECONDS = 0.002


def create_plan(name: str) -> str:
    """Return a plan that creates one file."""
    step = {"create_file": {"path": name, "content": f"{name}\n"}}
    return json.dumps({"objective": f"Create {name}", "workspace": "site", "steps": [step]})


async def executed(one: Desk, line: str) -> dict[str, str]:
    """Ask the orchestrator to execute a mission."""
    mission, request_id = line.split()
    try:
        last = await one.execute(mission, request_id=request_id)
    except ClientError as error:
        return {"key": mission, "reason": error.reason}
    return {"key": mission, "receipt": last.mission.receipt_id}


async def executed_directly(one: Forger, line: str) -> dict[str, str]:
    """Ask the executor to execute a mission."""
    request = executor_pb2.ExecuteRequest.FromString(base64.b64decode(line))
    try:
        receipt = await one.execute(request)
    except grpc.aio.AioRpcError as error:
        return {"key": request.mission_id, "reason": refused_from(error).reason}
    return {"key": request.mission_id, "receipt": receipt.receipt_id}


async def proposed(one: Desk, line: str) -> dict[str, str]:
    """Propose a plan."""
    name, request_id = line.split()
    answer = await one.client.propose(parse(create_plan(name).encode()), request_id=request_id)
    return {"key": request_id, "mission": answer.mission.mission_id}


async def race(listed: Path, ask: Callable[[str], Awaitable[dict[str, str]]], start: Path) -> list[dict[str, str]]:
    """Ask for all lines, some at once, from the moment that the start file is there."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(line: str) -> dict[str, str]:
        async with turns:
            return await ask(line)

    lines = listed.read_text().splitlines()  # noqa: ASYNC240 - nothing else runs yet
    listed.with_name(listed.name + ".ready").touch()
    while not start.exists():  # noqa: ASYNC110, ASYNC240 - another process makes the file
        await asyncio.sleep(POLL_SECONDS)
    return list(await asyncio.gather(*(one(line) for line in lines)))


async def main() -> None:
    """Run the mode that the arguments name."""
    mode, state, listed, start = sys.argv[1], *map(Path, sys.argv[2:5])
    if mode == "direct":
        async with forger(state) as bad:
            found = await race(listed, lambda line: executed_directly(bad, line), start)
    else:
        ask = {"execute": executed, "propose": proposed}[mode]
        async with desk(state) as one:
            await one.client.executor()
            found = await race(listed, lambda line: ask(one, line), start)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main())
