"""served.py PORT: an MCP server over streamable HTTP for tests, made with the SDK of the Python that runs it: `mcp` 1.x or
2.x, or `fastmcp`. PORT 0 is any free one; uvicorn says which. Its tools: `echo {text}`; `wait` says that it has begun,
as progress, and takes an hour.
"""
import asyncio, sys

PORT = int(sys.argv[1])
WAY = {"host": "127.0.0.1", "port": PORT}

try:
    from fastmcp import Context, FastMCP

    server, run = FastMCP("http"), lambda: server.run(transport="http", show_banner=False, **WAY)
except ImportError:
    try:
        from mcp.server.mcpserver import Context, MCPServer

        server, run = MCPServer("http"), lambda: server.run("streamable-http", **WAY)
    except ImportError:
        from mcp.server.fastmcp import Context, FastMCP

        server, run = FastMCP("http", **WAY), lambda: server.run("streamable-http")


@server.tool()
def echo(text: str) -> str:
    return text


@server.tool()
async def wait(context: Context) -> str:
    await context.report_progress(1)
    await asyncio.sleep(3600)
    return "waited"


run()
