"""Reference MCP server for acceptance tests (needs only PyPI `mcp==2.3.0`).

Exposes every tool, prompt and resource the MCP conformance suite looks for, on
the handshake wires (2025-06-18, 2025-11-25) and on the stateless 2026-07-28
wire, at http://127.0.0.1:PORT/mcp.   Usage: reference_server.py PORT
"""
import asyncio, json, socket, warnings

import mcp_types as t
import uvicorn
from mcp.server.caching import CacheHint
from mcp.server.lowlevel.server import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.streamable_http import EventMessage, EventStore
from mcp.server.subscriptions import (
    InMemorySubscriptionBus, ListenHandler, PromptsListChanged, ToolsListChanged)
from mcp.shared.exceptions import MCPError

warnings.simplefilter("ignore")
NAME = "acceptance-reference"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="
bus = InMemorySubscriptionBus()


# ---- small builders -------------------------------------------------------
def text(s): return {"type": "text", "text": s}
def image(): return {"type": "image", "data": PNG, "mimeType": "image/png"}
def audio(): return {"type": "audio", "data": WAV, "mimeType": "audio/wav"}
def embed(uri, mime, body): return {"type": "resource", "resource": {"uri": uri, "mimeType": mime, "text": body}}
def done(*content): return {"content": list(content)}
def obj(required=(), **props): return {"type": "object", "properties": props, "required": list(required)}


STR = {"type": "string"}


def form(message, schema): return {"method": "elicitation/create", "params": {"mode": "form", "message": message, "requestedSchema": schema}}
def ask(prompt, n): return {"method": "sampling/createMessage", "params": {"messages": [{"role": "user", "content": text(prompt)}], "maxTokens": n}}
def roots(): return {"method": "roots/list", "params": {}}


def need_input(requests=None, state=None):
    out = {"resultType": "input_required"}
    if requests: out["inputRequests"] = requests
    if state is not None: out["requestState"] = state
    return out


def answers(params):
    """inputResponses as plain dicts, or {} on the first round."""
    got = params.input_responses or {}
    return {k: v.model_dump(by_alias=True, exclude_none=True) if hasattr(v, "model_dump") else v for k, v in got.items()}


def field(answer, name):
    content = answer.get("content") if isinstance(answer, dict) else None
    return content.get(name) if isinstance(content, dict) else None


# ---- tools ----------------------------------------------------------------
TOOLS = {}


def tool(name, doc, schema=None):
    def add(fn):
        TOOLS[name] = ({"name": name, "description": doc, "inputSchema": schema or obj()}, fn)
        return fn
    return add


def fixed(name, doc, *content):
    async def fn(ctx, p): return done(*content)
    tool(name, doc)(fn)


fixed("test_simple_text", "One text block", text("This is a simple text response for testing."))
fixed("test_image_content", "One image block", image())
fixed("test_audio_content", "One audio block", audio())
fixed("test_embedded_resource", "One embedded resource", embed("test://embedded-resource", "text/plain", "This is an embedded resource content."))
fixed("test_multiple_content_types", "Text, image and resource", text("Multiple content types test:"), image(),
      embed("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'))
fixed("test_logging_tool", "Would log only when asked to", text("no log without an opt-in"))


@tool("test_error_handling", "Always fails")
async def _(ctx, p):
    return done(text("This tool intentionally returns an error for testing")) | {"isError": True}


@tool("test_tool_with_logging", "Three log messages")
async def _(ctx, p):
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.session.send_log_message("info", line, logger=NAME, related_request_id=ctx.request_id)
        await asyncio.sleep(0.05)
    return done(text("logged"))


@tool("test_tool_with_progress", "Three progress notifications")
async def _(ctx, p):
    for step in (0, 50, 100):
        await ctx.session.report_progress(step, 100, f"step {step}")
        await asyncio.sleep(0.05)
    return done(text("progressed"))


@tool("test_reconnection", "Closes its own SSE stream before answering")
async def _(ctx, p):
    if ctx.close_sse_stream:
        await ctx.close_sse_stream()
    await asyncio.sleep(0.2)
    return done(text("Reconnection test completed"))


@tool("test_sampling", "Asks the client's model", obj(["prompt"], prompt=STR))
async def _(ctx, p):
    r = await ctx.session.create_message(
        [t.SamplingMessage(role="user", content=t.TextContent(type="text", text=p.arguments["prompt"]))],
        max_tokens=100, related_request_id=ctx.request_id)
    return done(text(f"LLM response: {getattr(r.content, 'text', '?')}"))


async def elicit(ctx, message, schema):
    r = await ctx.session.elicit_form(message, schema, ctx.request_id)
    return done(text(f"Elicitation completed: action={r.action}, content={json.dumps(r.content)}"))


@tool("test_elicitation", "Asks the user", obj(["message"], message=STR))
async def _(ctx, p):
    return await elicit(ctx, p.arguments["message"], obj(["username", "email"], username=STR, email=STR))


@tool("test_elicitation_sep1034_defaults", "Form with defaults")
async def _(ctx, p):
    return await elicit(ctx, "Please confirm the defaults", obj(
        name={"type": "string", "default": "John Doe"}, age={"type": "integer", "default": 30},
        score={"type": "number", "default": 95.5}, verified={"type": "boolean", "default": True},
        status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"}))


@tool("test_elicitation_sep1330_enums", "Form with all enum variants")
async def _(ctx, p):
    plain = ["option1", "option2", "option3"]
    titled = [{"const": f"value{i}", "title": f"Option number {i}"} for i in (1, 2, 3)]
    return await elicit(ctx, "Please choose", obj(
        untitledSingle={"type": "string", "enum": plain},
        titledSingle={"type": "string", "oneOf": titled},
        legacyEnum={"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"]},
        untitledMulti={"type": "array", "items": {"type": "string", "enum": plain}},
        titledMulti={"type": "array", "items": {"anyOf": titled}}))


tool("json_schema_2020_12_tool", "Tool with JSON Schema 2020-12 features", {
    "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
    "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"street": STR, "city": STR}}},
    "properties": {"name": STR, "address": {"$ref": "#/$defs/address"}, "phone": STR, "email": STR,
                   "contactMethod": {"type": "string", "enum": ["phone", "email"]}},
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]}, "else": {"required": ["email"]}, "additionalProperties": False,
})(TOOLS["test_simple_text"][1])


@tool("test_custom_header", "Mirrors a parameter into an HTTP header (2026-07-28)",
      obj(["region"], region={"type": "string", "x-mcp-header": "Region"}))
async def _(ctx, p):
    return done(text(f"region={p.arguments['region']}"))


# ---- tools of the 2026-07-28 wire -----------------------------------------
NAME_FORM = obj(["name"], name=STR)


@tool("test_missing_capability", "Needs the sampling capability")
async def _(ctx, p):
    caps = ctx.session.client_capabilities
    if caps is None or caps.sampling is None:
        raise MCPError(t.MISSING_REQUIRED_CLIENT_CAPABILITY, "sampling is required", {"requiredCapabilities": {"sampling": {}}})
    return done(text("sampling is declared"))


@tool("test_streaming_elicitation", "Input required over a stream")
@tool("test_input_required_result_elicitation", "One elicitation round")
async def _(ctx, p):
    name = field(answers(p).get("user_name"), "name")
    return done(text(f"Hello, {name}!")) if name else need_input({"user_name": form("What is your name?", NAME_FORM)})


@tool("test_input_required_result_sampling", "One sampling round")
async def _(ctx, p):
    got = answers(p).get("capital_question")
    return done(text(json.dumps(got))) if got else need_input({"capital_question": ask("What is the capital of France?", 100)})


@tool("test_input_required_result_list_roots", "One roots round")
async def _(ctx, p):
    got = answers(p).get("client_roots")
    return done(text(json.dumps(got, default=str))) if got else need_input({"client_roots": roots()})


@tool("test_input_required_result_request_state", "requestState is echoed")
async def _(ctx, p):
    if answers(p).get("confirm") and p.request_state == "nonce":
        return done(text("state-ok"))
    return need_input({"confirm": form("Please confirm", obj(["ok"], ok={"type": "boolean"}))}, "nonce")


@tool("test_input_required_result_tampered_state", "requestState is sealed")
async def _(ctx, p):
    if p.request_state is not None:
        return done(text("state-ok"))
    return need_input({"confirm": form("Please confirm", obj(["ok"], ok={"type": "boolean"}))}, "sealed")


@tool("test_input_required_result_multiple_inputs", "Three inputs at once")
async def _(ctx, p):
    want = {"user_name": form("What is your name?", NAME_FORM), "greeting": ask("Generate a greeting", 50), "client_roots": roots()}
    return done(text("all inputs received")) if want.keys() <= answers(p).keys() else need_input(want, "multi")


@tool("test_input_required_result_multi_round", "Three rounds")
async def _(ctx, p):
    got, state = answers(p), json.loads(p.request_state or "[]")
    if len(state) == 1 and "step1" in got:
        color = form("Step 2: What is your favorite color?", obj(["color"], color=STR))
        return need_input({"step2": color}, json.dumps(["round-2", field(got["step1"], "name")]))
    if len(state) == 2 and "step2" in got:
        return done(text(f"{state[1]} likes {field(got['step2'], 'color')}"))
    return need_input({"step1": form("Step 1: What is your name?", NAME_FORM)}, json.dumps(["round-1"]))


@tool("test_input_required_result_capabilities", "Asks only what the client declared")
async def _(ctx, p):
    caps, want = ctx.session.client_capabilities, {}
    if caps and caps.sampling: want["sample"] = ask("Say hello", 50)
    if caps and caps.elicitation: want["ask"] = form("What is your name?", NAME_FORM)
    return need_input(want, "caps")


@tool("test_trigger_tool_change", "Announces a tool list change")
async def _(ctx, p):
    await bus.publish(ToolsListChanged())
    return done(text("announced"))


@tool("test_trigger_prompt_change", "Announces a prompt list change")
async def _(ctx, p):
    await bus.publish(PromptsListChanged())
    return done(text("announced"))


# ---- prompts and resources ------------------------------------------------
def said(*content): return {"messages": [{"role": "user", "content": c} for c in content]}
def arg(n): return {"name": n, "description": f"argument {n}", "required": True}


def context_prompt(a, p):
    got = field(answers(p).get("user_context"), "context")
    ask_it = form("What context should the prompt use?", obj(["context"], context=STR))
    return said(text(f"Use this context: {got}")) if got else need_input({"user_context": ask_it})


PROMPTS = {
    "test_simple_prompt": ([], lambda a, p: said(text("This is a simple prompt for testing."))),
    "test_prompt_with_arguments": ([arg("arg1"), arg("arg2")],
        lambda a, p: said(text(f"Prompt with arguments: arg1='{a['arg1']}', arg2='{a['arg2']}'"))),
    "test_prompt_with_embedded_resource": ([arg("resourceUri")],
        lambda a, p: said(embed(a["resourceUri"], "text/plain", "Embedded resource content for testing."),
                          text("Please process the embedded resource above."))),
    "test_prompt_with_image": ([], lambda a, p: said(image(), text("Please analyze the image above."))),
    "test_input_required_result_prompt": ([], context_prompt),
}
RESOURCES = {
    "test://static-text": ("text/plain", {"text": "This is the content of the static text resource."}),
    "test://static-binary": ("image/png", {"blob": PNG}),
    "test://watched-resource": ("text/plain", {"text": "Watched resource content"}),
}


async def list_tools(ctx, p): return {"tools": [d for d, _ in TOOLS.values()]}


async def call_tool(ctx, p):
    if p.name not in TOOLS:
        raise MCPError(t.INVALID_PARAMS, f"Unknown tool: {p.name}")
    return await TOOLS[p.name][1](ctx, p)


async def list_prompts(ctx, p):
    return {"prompts": [{"name": n, "description": f"prompt {n}", "arguments": a} for n, (a, _) in PROMPTS.items()]}


async def get_prompt(ctx, p):
    if p.name not in PROMPTS:
        raise MCPError(t.INVALID_PARAMS, f"Unknown prompt: {p.name}")
    return PROMPTS[p.name][1](p.arguments or {}, p)


async def list_resources(ctx, p):
    return {"resources": [{"uri": u, "name": u.split("//")[1], "description": f"resource {u}", "mimeType": m}
                          for u, (m, _) in RESOURCES.items()]}


async def list_templates(ctx, p):
    return {"resourceTemplates": [{"uriTemplate": "test://template/{id}/data", "name": "template",
                                   "description": "templated resource", "mimeType": "application/json"}]}


async def read_resource(ctx, p):
    uri = str(p.uri)
    if uri in RESOURCES:
        mime, body = RESOURCES[uri]
    elif uri.startswith("test://template/") and uri.endswith("/data"):
        ident = uri.split("/")[3]
        mime, body = "application/json", {"text": json.dumps({"id": ident, "templateTest": True, "data": f"Data for ID: {ident}"})}
    else:
        raise MCPError(t.INVALID_PARAMS, "Resource not found", {"uri": uri})
    return {"contents": [{"uri": uri, "mimeType": mime, **body}]}


async def complete(ctx, p): return {"completion": {"values": ["alpha", "beta"], "total": 2, "hasMore": False}}
async def nothing(ctx, p): return {}


class Events(EventStore):
    """Every SSE event ever sent, for Last-Event-ID replay."""
    def __init__(self): self.log = []

    async def store_event(self, stream_id, message):
        self.log.append((stream_id, message))
        return str(len(self.log))

    async def replay_events_after(self, last_event_id, send):
        at = int(last_event_id)
        stream = self.log[at - 1][0]
        for i, (sid, msg) in enumerate(self.log[at:], at + 1):
            if sid == stream and msg is not None:
                await send(EventMessage(msg, str(i)))
        return stream


def whole(handler):
    """Mark plain results as complete (the SDK drops the mark on older wires)."""
    async def run(ctx, p): return {"resultType": "complete", **await handler(ctx, p)}
    return run


def build():
    fresh = CacheHint(ttl_ms=60000, scope="public")
    server = Server(
        NAME, version="1.0.0",
        cache_hints={m: fresh for m in ("tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read")},
        on_list_tools=whole(list_tools), on_call_tool=whole(call_tool), on_list_prompts=whole(list_prompts), on_get_prompt=whole(get_prompt),
        on_list_resources=whole(list_resources), on_list_resource_templates=whole(list_templates), on_read_resource=whole(read_resource),
        on_subscribe_resource=nothing, on_unsubscribe_resource=nothing, on_set_logging_level=nothing,
        on_completion=whole(complete), on_subscriptions_listen=ListenHandler(bus))
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME))
    return server.streamable_http_app(event_store=Events(), retry_interval=100)


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"reference: http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    uvicorn.Server(uvicorn.Config(build(), log_level="warning")).run(sockets=[listener])
