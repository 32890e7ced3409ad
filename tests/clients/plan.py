"""Runs the plans of argv with a Python client and prints what came back as JSON, a list with one item for each.

A plan: {"target": {"url"} or {"command", "args"}, "prefix", "calls": [[tool, arguments]], "reads": [uri],
"prompts": [[prompt, arguments]], "completions": [[prompt, argument, value]], "asks": [[tool, arguments]]}. PREFIX goes
before every tool and prompt name that is sent and comes off every one that is listed; listed names without it are left
out. `asks` are calls in which the server asks the client, which says that it can be asked only if there are some.
"""
import asyncio, json, sys


def plain(value):
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


class Asked:
    """What a server has asked, and how that is answered."""

    def __init__(self):
        self.questions = []

    def note(self, method, params):
        params = plain(params)
        params.pop("_meta", None)
        self.questions.append([method, params])
        return params

    def sample(self, params):
        self.note("sampling/createMessage", params)
        return {"role": "assistant", "model": "a model", "content": {"type": "text", "text": "what was sampled"}}

    def elicit(self, params):
        fields = self.note("elicitation/create", params)["requestedSchema"]["properties"]
        return {"action": "accept", "content": {field: f"my {field}" for field in fields}}


async def run(client, plan, asked, reference, suffix="", progress="progress_callback"):
    """`reference` makes one to a prompt, `suffix` ends the client's methods, `progress` names the callback of calls."""
    prefix = plan["prefix"]
    out = {key: [] for key in ("tools", "calls", "progress", "reads", "prompts", "got", "completed", "answered")}

    def method(name):
        return getattr(client, name + suffix)

    async def every(name, key):
        """All items of a list, over all pages."""
        items, cursor = [], None
        while True:
            page = plain(await method(name)(cursor=cursor))
            items += page[key]
            cursor = page.get("nextCursor")
            if not cursor:
                return items

    def own(items):
        return [{**item, "name": item["name"][len(prefix):]} for item in items if item["name"].startswith(prefix)]

    async def call(name, arguments):
        told = []

        async def note(progress, total, message):
            told.append([progress, total])

        return plain(await method("call_tool")(prefix + name, arguments, **{progress: note})), told

    out["tools"] = own(await every("list_tools", "tools"))
    for name, arguments in plan["calls"]:
        result, told = await call(name, arguments)
        out["calls"].append(result)
        out["progress"].append(told)
    if plan["reads"]:
        out["resources"] = await every("list_resources", "resources")
        out["templates"] = await every("list_resource_templates", "resourceTemplates")
    for uri in plan["reads"]:
        out["reads"].append(plain(await method("read_resource")(uri)))
    if plan["prompts"]:
        out["prompts"] = own(await every("list_prompts", "prompts"))
    for name, arguments in plan["prompts"]:
        out["got"].append(plain(await method("get_prompt")(prefix + name, arguments)))
    for name, argument, value in plan["completions"]:
        ref = reference(type="ref/prompt", name=prefix + name)
        out["completed"].append(plain(await method("complete")(ref, {"name": argument, "value": value})))
    for name, arguments in plan["asks"]:
        out["answered"].append((await call(name, arguments))[0])
    out["asked"] = asked.questions
    return out


def main(one):
    """Runs every plan with `one(plan, asked)`."""
    async def every():
        return [await one(plan, Asked()) for plan in json.loads(sys.argv[1])]

    print(json.dumps(asyncio.run(every())))
