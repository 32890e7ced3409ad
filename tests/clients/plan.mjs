// Runs the plan of argv (see client.py) with a TypeScript SDK client and prints what came back as JSON.
// CLIENTS is the folder of the installed packages.
import { createRequire } from 'node:module';

export const load = createRequire(`${process.env.CLIENTS}/package.json`);
const plan = JSON.parse(process.argv[2]);
const { target, prefix } = plan;

export async function run(client, { Http, Stdio }) {
  const transport = target.url ? new Http(new URL(target.url)) : new Stdio({ ...target, stderr: 'ignore' });
  await client.connect(transport);
  const every = async (method, key) => {
    const items = [];
    let cursor;
    do {
      const page = await client[method]({ cursor });
      items.push(...page[key]);
      cursor = page.nextCursor;
    } while (cursor);
    return items;
  };
  const own = (items) => items.filter((x) => x.name.startsWith(prefix)).map((x) => ({ ...x, name: x.name.slice(prefix.length) }));
  const out = { tools: own(await every('listTools', 'tools')), calls: [], reads: [], prompts: [], got: [] };
  for (const [name, args] of plan.calls) out.calls.push(await client.callTool({ name: prefix + name, arguments: args }));
  if (plan.reads.length) {
    out.resources = await every('listResources', 'resources');
    out.templates = await every('listResourceTemplates', 'resourceTemplates');
  }
  for (const uri of plan.reads) out.reads.push(await client.readResource({ uri }));
  if (plan.prompts.length) out.prompts = own(await every('listPrompts', 'prompts'));
  for (const [name, args] of plan.prompts) out.got.push(await client.getPrompt({ name: prefix + name, arguments: args }));
  console.log(JSON.stringify(out));
  await client.close();
}
