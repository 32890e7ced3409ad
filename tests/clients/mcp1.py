"""mcp1.py PLANS: the Python SDK of the 1.x series."""
from contextlib import asynccontextmanager

from mcp import ClientSession, StdioServerParameters, types
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from plan import main, run


@asynccontextmanager
async def connected(target):
    transport = streamable_http_client(target["url"]) if "url" in target else stdio_client(StdioServerParameters(**target))
    async with transport as streams:
        yield streams[:2]


async def one(plan, asked):
    async def sample(context, params):
        return types.CreateMessageResult.model_validate(asked.sample(params))

    async def elicit(context, params):
        return types.ElicitResult.model_validate(asked.elicit(params))

    able = {"sampling_callback": sample, "elicitation_callback": elicit} if plan["asks"] else {}
    async with connected(plan["target"]) as streams, ClientSession(*streams, **able) as client:
        await client.initialize()
        return await run(client, plan, asked, types.PromptReference)


main(one)
