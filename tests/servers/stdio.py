"""stdio.py PIDS: a stdio MCP server (2025-11-25) for tests; needs nothing but Python.

It starts a child and, in a session of its own, a second one, and writes its own pid, theirs and its parent's
to the file PIDS as `role pid` lines. Its tool `inflate {text, size}` answers with the digest of `text` and
`size` bytes of filler. When its stdin ends it stays, as a server does that hangs, and adds the line `eof 0`.
"""
import hashlib, itertools, json, os, subprocess, sys, threading, time

pids = open(sys.argv[1], "a", buffering=1)
child = subprocess.Popen(["sleep", "100000"], stdin=subprocess.DEVNULL)
apart = subprocess.Popen(["sleep", "100000"], stdin=subprocess.DEVNULL, start_new_session=True)
pids.write(f"parent {os.getppid()}\nserver {os.getpid()}\nchild {child.pid}\napart {apart.pid}\nready 0\n")

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}, "size": {"type": "integer"}}}
lock, calls = threading.Lock(), itertools.count()


def send(message):
    try:
        with lock:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()
    except BrokenPipeError:
        pass  # The data plane was killed before it had the answer: stay all the same.


def inflate(ident, arguments):
    digest = hashlib.sha256(arguments["text"].encode()).hexdigest()
    content = [{"type": "text", "text": digest + "." * arguments["size"]}]
    send({"jsonrpc": "2.0", "id": ident, "result": {"content": content}})


def answer(message):
    method, ident = message["method"], message.get("id")
    if ident is None:
        return
    if method == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "stdio", "version": "0"}}
    elif method == "tools/list":
        result = {"tools": [{"name": "inflate", "inputSchema": SCHEMA}]}
    elif method == "ping":
        result = {}
    elif method == "tools/call":
        # In turn while it reads on, so that answers overtake each other, and before it does: then a client that
        # does not read while it writes locks both up.
        answering = threading.Thread(target=inflate, args=(ident, message["params"]["arguments"]))
        answering.start()
        if next(calls) % 2:
            answering.join()
        return
    else:
        send({"jsonrpc": "2.0", "id": ident, "error": {"code": -32601, "message": "Method not found"}})
        return
    send({"jsonrpc": "2.0", "id": ident, "result": result})


for line in sys.stdin:
    answer(json.loads(line))
pids.write("eof 0\n")
while True:
    time.sleep(100000)
