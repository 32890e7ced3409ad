"""client.py PLAN: runs a plan with the Python SDK (`mcp` 2.x) and prints what came back as JSON.

A plan: {"target": {"url"} or {"command", "args"}, "prefix", "calls": [[tool, arguments]], "reads": [uri],
"prompts": [[prompt, arguments]]}. PREFIX goes before every tool and prompt name that is sent and comes off
every one that is listed; listed names without it are left out.
"""
import asyncio, json, sys

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

plan = json.loads(sys.argv[1])
target, prefix = plan["target"], plan["prefix"]


def plain(value):
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


async def every(method, key):
    """All items of a list, over all pages."""
    items, cursor = [], None
    while True:
        page = plain(await method(cursor=cursor))
        items += page[key]
        cursor = page.get("nextCursor")
        if not cursor:
            return items


def own(items):
    return [{**item, "name": item["name"][len(prefix):]} for item in items if item["name"].startswith(prefix)]


async def run(client):
    has = client.server_capabilities
    out = {"tools": own(await every(client.list_tools, "tools")), "calls": [], "reads": [], "prompts": [], "got": []}
    for name, arguments in plan["calls"]:
        out["calls"].append(plain(await client.call_tool(prefix + name, arguments)))
    if plan["reads"]:
        out["resources"] = await every(client.list_resources, "resources")
        out["templates"] = await every(client.list_resource_templates, "resourceTemplates")
    for uri in plan["reads"]:
        out["reads"].append(plain(await client.read_resource(uri)))
    if plan["prompts"]:
        out["prompts"] = own(await every(client.list_prompts, "prompts"))
    for name, arguments in plan["prompts"]:
        out["got"].append(plain(await client.get_prompt(prefix + name, arguments)))
    return out


async def main():
    if "url" in target:
        server = target["url"]
    else:
        server = stdio_client(StdioServerParameters(command=target["command"], args=target["args"]))
    async with Client(server) as client:
        print(json.dumps(await run(client)))


asyncio.run(main())
