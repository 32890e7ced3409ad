"""pid.py: a stdio MCP server (2025-11-25) for tests; needs nothing but Python.

Its tool `pid` answers with its process id, so that it can be told who has answered.
"""
import json, os, sys

for line in sys.stdin:
    message = json.loads(line)
    method, ident = message.get("method"), message.get("id")
    if ident is None or method is None:
        continue
    answer = {"jsonrpc": "2.0", "id": ident}
    if method == "initialize":
        answer["result"] = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "pid", "version": "0"}}
    elif method == "tools/list":
        answer["result"] = {"tools": [{"name": "pid", "inputSchema": {"type": "object"}}]}
    elif method == "tools/call":
        answer["result"] = {"content": [{"type": "text", "text": str(os.getpid())}]}
    elif method == "ping":
        answer["result"] = {}
    else:
        answer["error"] = {"code": -32601, "message": "Method not found"}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
