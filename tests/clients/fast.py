"""fast.py PLANS MODE: `fastmcp`. MODE `auto` is its default: the newest revision that both know."""
import sys

import mcp_types as types
from fastmcp import Client
from fastmcp.client.transports import StdioTransport

from plan import main, run


async def one(plan, asked):
    async def sample(messages, params, context):
        return types.CreateMessageResult.model_validate(asked.sample(params))

    async def elicit(message, form, params, context):
        return types.ElicitResult.model_validate(asked.elicit(params))

    target = plan["target"]
    server = target.get("url") or StdioTransport(**target)
    able = {"sampling_handler": sample, "elicitation_handler": elicit} if plan["asks"] else {}
    async with Client(server, mode=sys.argv[2], **able) as client:
        return await run(client, plan, asked, types.PromptReference, suffix="_mcp", progress="progress_handler")


main(one)
