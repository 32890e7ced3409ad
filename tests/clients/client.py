"""client.py PLANS MODE: the Python SDK (`mcp` 2.x). MODE `auto` is its default: the newest revision that both know."""
import sys

import mcp_types as types
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from plan import main, run


async def one(plan, asked):
    async def sample(context, params):
        return types.CreateMessageResult.model_validate(asked.sample(params))

    async def elicit(context, params):
        return types.ElicitResult.model_validate(asked.elicit(params))

    target = plan["target"]
    server = target.get("url") or stdio_client(StdioServerParameters(**target))
    able = {"sampling_callback": sample, "elicitation_callback": elicit} if plan["asks"] else {}
    async with Client(server, mode=sys.argv[2], **able) as client:
        return await run(client, plan, asked, types.PromptReference)


main(one)
