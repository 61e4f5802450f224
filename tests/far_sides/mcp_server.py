"""A server of tools as a test wants it: the folder it is given says which tools it has and keeps what was called.

python mcp_server.py FOLDER          speaks over its standard input and output
python mcp_server.py FOLDER PORT     serves http://127.0.0.1:PORT/mcp
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn
from mcp import types
from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server

FOLDER = Path(sys.argv[1])
PAGE = 2
PICTURE = "iVBORw0KGgo="

Context = ServerRequestContext[Any]


def _tools() -> list[types.Tool]:
    return [types.Tool.model_validate(tool) for tool in json.loads((FOLDER / "tools.json").read_text())]


async def _list(_context: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    first = int(params.cursor) if params is not None and params.cursor else 0
    tools = _tools()
    endless = (FOLDER / "endless").exists()
    more = endless or first + PAGE < len(tools)
    return types.ListToolsResult(
        tools=tools[first : first + PAGE], next_cursor=str(0 if endless else first + PAGE) if more else None
    )


async def _call(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    arguments = params.arguments or {}
    with (FOLDER / "calls.jsonl").open("a") as file:
        meta = {name: one for name, one in dict(context.meta or {}).items() if name.startswith("gonogo/")}
        file.write(json.dumps({"tool": params.name, "arguments": arguments, "meta": meta}) + "\n")
    match params.name:
        case "slow":
            await asyncio.sleep(600)
        case "die":
            os._exit(3)
        case "fail":
            return _text("it is not well", is_error=True)
        case "picture":
            picture = types.ImageContent(type="image", data=PICTURE, mime_type="image/png")
            return types.CallToolResult(content=[picture], structured_content={"wide": 3})
        case "tell":
            return _text(f"the variable is {os.environ.get('TOKEN')}")
        case "ask":
            return _text(await _asked(context))
        case "loud":
            return _text("x" * 6_000_000)
        case _:
            pass
    return _text(f"noted {arguments.get('text')}")


async def _asked(context: Context) -> str:
    """Ask the client for a model's answer, and say what came of it."""
    try:
        await context.session.send_request(types.ListRootsRequest(), types.ListRootsResult)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        return f"refused: {error}"
    return "the client answered"


def _text(text: str, *, is_error: bool = False) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=is_error)


SERVER: Server[Any] = Server("notes", version="1.2", on_list_tools=_list, on_call_tool=_call)


async def _stdio() -> None:
    async with stdio_server() as (read, write):
        await SERVER.run(read, write, SERVER.create_initialization_options())


if __name__ == "__main__":
    (FOLDER / "pid").write_text(str(os.getpid()))
    if (FOLDER / "mute").exists():
        time.sleep(600)
    if len(sys.argv) > 2:
        uvicorn.run(SERVER.streamable_http_app(), host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
    else:
        asyncio.run(_stdio())
