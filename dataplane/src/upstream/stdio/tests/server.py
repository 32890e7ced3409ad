"""An MCP server on standard streams for the tests of stdio backends.

Usage: server.py MODE [LOG]. MODE says how it greets; each message it gets is
appended to LOG. Calls are answered as the name of the tool says.
"""

import json
import os
import sys

mode = sys.argv[1]
log = open(sys.argv[2], "a") if len(sys.argv) > 2 else None
asked = {}


def send(message):
    sys.stdout.write(json.dumps(message, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def answer(request, **outcome):
    send({"jsonrpc": "2.0", "id": request["id"], **outcome})


def error(request, code, message, **data):
    answer(request, error={"code": code, "message": message, **data})


def call(request):
    params = request["params"]
    name = params["name"]
    arguments = params.get("arguments", {})
    if name == "echo":
        answer(request, result={"got": arguments})
    elif name == "size":
        answer(request, result={"got": len(arguments["text"]), "text": "r" * arguments["reply"]})
    elif name == "die":
        sys.stderr.write("I am dying\n")
        sys.stderr.flush()
        os.kill(os.getpid(), 9)
    elif name == "exit":
        sys.exit(3)
    elif name == "progress":
        token = params["_meta"]["progressToken"]
        for step in range(arguments["steps"]):
            send({"jsonrpc": "2.0", "method": "notifications/progress",
                  "params": {"progressToken": token, "progress": step}})
        answer(request, result={"token": token})
    elif name == "garbage":
        sys.stdout.write("Server listening…\n\n{\"jsonrpc\":\"2.0\"}\n[]\n" + "x" * 300000 + "\n")
        send({"jsonrpc": "2.0", "id": 999999, "result": {}})
        send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        answer(request, result={})
    elif name == "twice":
        sys.stdout.write('{"jsonrpc":"2.0","id":%d,"result":{},"result":{}}\n' % request["id"])
        sys.stdout.flush()
    elif name == "ask":
        asked["by"] = request
        for method in ("ping", "sampling/createMessage"):
            send({"jsonrpc": "2.0", "id": method, "method": method})
    elif name == "deaf":
        sys.stdout.close()
        sys.stdin.close()
        os.close(1)
        os.close(0)
        import time
        time.sleep(1000)


for line in sys.stdin:
    message = json.loads(line)
    if log:
        log.write(line)
        log.flush()
    method = message.get("method")
    if method == "server/discover":
        if mode == "modern":
            answer(message, result={"supportedVersions": ["2026-07-28"], "capabilities": {}})
        elif mode == "other":
            error(message, -32022, "Unsupported protocol version",
                  data={"supported": ["2027-01-01", "2025-06-18"]})
        elif mode == "future":
            error(message, -32022, "Unsupported protocol version", data={"supported": ["2027-01-01"]})
        elif mode == "fragile":
            sys.exit(1)
        elif mode != "silent":
            error(message, -32601, "Method not found")
    elif method == "initialize":
        if mode == "refuses":
            error(message, -32603, "no licence")
        else:
            version = message["params"]["protocolVersion"]
            answer(message, result={"protocolVersion": version, "capabilities": {}})
    elif method == "tools/call":
        call(message)
    elif method is None and asked:
        asked[message["id"]] = message.get("result", message.get("error"))
        if len(asked) == 3:
            answer(asked.pop("by"), result=asked)
            asked = {}
