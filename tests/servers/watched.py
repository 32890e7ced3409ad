"""watched.py SEEN ERA: a stdio MCP server for tests whose resources can be subscribed to; needs nothing but Python.

ERA is `legacy` (2025-11-25) or `modern` (2026-07-28). It writes every message that it reads to the file SEEN, one a
line. It takes subscriptions to all but `watched://secret`. Its tools: `touch {uri, part}` says to who has subscribed
to `uri` that `part`, or `uri` itself, has changed; `leave` ends it.
"""
import json, sys

MODERN = sys.argv[2] == "modern"
SECRET = "watched://secret"
ID = "io.modelcontextprotocol/subscriptionId"
URIS = ["watched://one", "watched://two", SECRET]
seen = open(sys.argv[1], "a", buffering=1)
subscribed = set()
listeners = {}


def send(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def touch(uri, part):
    for ident, uris in listeners.items():
        if uri in uris:
            send(method="notifications/resources/updated", params={"_meta": {ID: ident}, "uri": part})
    if uri in subscribed:
        send(method="notifications/resources/updated", params={"uri": part})


def listen(ident, wanted):
    uris = [uri for uri in wanted.get("resourceSubscriptions", []) if uri != SECRET]
    listeners[ident] = uris
    honoured = {**wanted, "resourceSubscriptions": uris} if uris else {k: v for k, v in wanted.items() if v is True}
    params = {"_meta": {ID: ident}, "notifications": honoured}
    send(method="notifications/subscriptions/acknowledged", params=params)


def lists(method):
    if method == "tools/list":
        return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("touch", "leave")]}
    if method == "resources/list":
        return {"resources": [{"uri": uri, "name": uri} for uri in URIS]}
    if method == "resources/templates/list":
        return {"resourceTemplates": []}


def result(ident, method, params):
    if method == "tools/call":
        arguments = params.get("arguments", {})
        if params["name"] == "leave":
            sys.exit(0)
        touch(arguments["uri"], arguments.get("part", arguments["uri"]))
        return {"content": [{"type": "text", "text": "done"}]}
    capabilities = {"tools": {}, "resources": {"subscribe": True}}
    if MODERN:
        if method == "server/discover":
            return {"supportedVersions": ["2026-07-28"], "capabilities": capabilities}
    elif method == "initialize":
        info = {"name": "watched", "version": "0"}
        return {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info}
    elif method == "ping":
        return {}
    elif method == "resources/subscribe" and params["uri"] != SECRET:
        subscribed.add(params["uri"])
        return {}
    elif method == "resources/unsubscribe":
        subscribed.discard(params["uri"])
        return {}
    return lists(method)


for line in sys.stdin:
    seen.write(line)
    message = json.loads(line)
    method, ident, params = message["method"], message.get("id"), message.get("params", {})
    if method == "notifications/cancelled":
        listeners.pop(params["requestId"], None)
    if ident is None:
        continue
    if MODERN and method == "subscriptions/listen":
        listen(ident, params["notifications"])
        continue
    answer = result(ident, method, params)
    if answer is not None:
        send(id=ident, result={"resultType": "complete", **answer} if MODERN else answer)
    elif method == "resources/subscribe" and not MODERN:
        send(id=ident, error={"code": -32002, "message": "Nobody may watch this", "data": {"own": 1.10}})
    else:
        send(id=ident, error={"code": -32601, "message": "Method not found"})
