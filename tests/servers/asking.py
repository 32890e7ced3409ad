"""asking.py SEEN: a stdio MCP server (2025-11-25) for tests that asks its client; needs nothing but Python.

It writes every message that it reads to the file SEEN, one a line. Its tools: `ask {method, params}` asks the
client and answers what the client has answered; `progress` tells of some; `log` says something of every severity
from its level on, which is `warning` at first; `wait` never answers. To every subscription it says at once that the
resource has changed.
"""
import json, sys

seen = open(sys.argv[1], "a", buffering=1)
waiting = {}
SEVERITIES = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
level = ["warning"]


def send(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def tool(name):
    return {"name": name, "inputSchema": {"type": "object"}}


def call(ident, params):
    name, arguments = params["name"], params.get("arguments", {})
    if name == "ask":
        waiting[f"q-{ident}"] = ident
        send(id=f"q-{ident}", method=arguments["method"], params=arguments["params"])
        return
    if name == "progress":
        token = params["_meta"]["progressToken"]
        send(method="notifications/progress", params={"progressToken": token, "progress": 1})
    if name == "log":
        for severity in SEVERITIES[SEVERITIES.index(level[0]) :]:
            send(method="notifications/message", params={"level": severity, "data": "said"})
    if name != "wait":
        send(id=ident, result={"content": [{"type": "text", "text": "done"}]})


def answer(message):
    method, ident, params = message.get("method"), message.get("id"), message.get("params", {})
    if method is None:
        text = json.dumps(message.get("result") or message.get("error"))
        send(id=waiting.pop(ident), result={"content": [{"type": "text", "text": text}]})
    elif ident is None:
        return
    elif method == "initialize":
        capabilities = {"tools": {}, "resources": {"subscribe": True}, "logging": {}}
        info = {"name": "asking", "version": "0"}
        send(id=ident, result={"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info})
    elif method == "tools/list":
        send(id=ident, result={"tools": [tool(name) for name in ("ask", "log", "progress", "wait")]})
    elif method == "resources/list":
        send(id=ident, result={"resources": [{"uri": "stdio://one", "name": "one"}]})
    elif method == "resources/templates/list":
        send(id=ident, result={"resourceTemplates": []})
    elif method == "resources/subscribe":
        send(id=ident, result={})
        send(method="notifications/resources/updated", params={"uri": params["uri"]})
    elif method == "tools/call":
        call(ident, params)
    elif method == "logging/setLevel":
        level[0] = params["level"]
        send(id=ident, result={})
    elif method == "ping":
        send(id=ident, result={})
    else:
        send(id=ident, error={"code": -32601, "message": "Method not found"})


for line in sys.stdin:
    seen.write(line)
    answer(json.loads(line))
