"""An MCP server over the HTTP+SSE transport of 2024-11-05 (PyPI `mcp`). Usage: sse.py PORT (0: a free one)."""
import socket, sys

import anyio
import uvicorn
from mcp.server.mcpserver import MCPServer

server = MCPServer("sse")


@server.tool()
def echo(text: str) -> str:
    return text


@server.tool()
async def hang() -> str:
    await anyio.sleep(3600)
    return ""


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print(f"port {listener.getsockname()[1]}", flush=True)
uvicorn.Server(uvicorn.Config(server.sse_app(), log_level="warning")).run(sockets=[listener])
