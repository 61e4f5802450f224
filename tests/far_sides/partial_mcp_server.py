"""A server of one tool that does something and then complains of its arguments.

python partial_mcp_server.py FOLDER
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from mcp import MCPError, types
from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server

FOLDER = Path(sys.argv[1])
Context = ServerRequestContext[Any]


async def _list(_context: Context, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    return types.ListToolsResult(tools=[types.Tool(name="note", input_schema={"type": "object"})])


async def _call(_context: Context, _params: types.CallToolRequestParams) -> types.CallToolResult:
    (FOLDER / "half").write_text("done")
    raise MCPError(types.INVALID_PARAMS, "the second half can not be done with these")


SERVER: Server[Any] = Server("partial", version="1", on_list_tools=_list, on_call_tool=_call)


async def _stdio() -> None:
    async with stdio_server() as (read, write):
        await SERVER.run(read, write, SERVER.create_initialization_options())


if __name__ == "__main__":
    asyncio.run(_stdio())
