// Runs the plans of argv (see plan.py) with a TypeScript SDK client and prints what came back as JSON.
// CLIENTS is the folder of the installed packages.
import { createRequire } from 'node:module';

export const load = createRequire(`${process.env.CLIENTS}/package.json`);

// How questions of servers are answered.
const answers = {
  'sampling/createMessage': () => ({
    role: 'assistant', model: 'a model', content: { type: 'text', text: 'what was sampled' },
  }),
  'elicitation/create': ({ requestedSchema }) => ({
    action: 'accept', content: Object.fromEntries(Object.keys(requestedSchema.properties).map((x) => [x, `my ${x}`])),
  }),
};

// `make` gives a client with these capabilities, `handle` has it answer a method, `call` calls a tool.
export async function run({ make, handle, call, Http, Stdio }) {
  const out = [];
  for (const plan of JSON.parse(process.argv[2])) out.push(await one(plan));
  console.log(JSON.stringify(out));

  async function one({ target, prefix, calls, reads, prompts, completions, asks }) {
    const client = make(asks.length ? { sampling: {}, elicitation: { form: {} } } : {});
    const asked = [];
    if (asks.length) {
      for (const [method, answer] of Object.entries(answers)) {
        handle(client, method, ({ params: { _meta, ...params } }) => {
          asked.push([method, params]);
          return answer(params);
        });
      }
    }
    await client.connect(target.url ? new Http(new URL(target.url)) : new Stdio({ ...target, stderr: 'ignore' }));
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
    const tool = async (name, args) => {
      const told = [];
      const onprogress = ({ progress, total }) => told.push([progress, total]);
      return [await call(client, { name: prefix + name, arguments: args }, { onprogress }), told];
    };
    const tools = own(await every('listTools', 'tools'));
    const out = { tools, calls: [], progress: [], reads: [], prompts: [], got: [], completed: [], asked, answered: [] };
    for (const [name, args] of calls) {
      const [result, told] = await tool(name, args);
      out.calls.push(result);
      out.progress.push(told);
    }
    if (reads.length) {
      out.resources = await every('listResources', 'resources');
      out.templates = await every('listResourceTemplates', 'resourceTemplates');
    }
    for (const uri of reads) out.reads.push(await client.readResource({ uri }));
    if (prompts.length) out.prompts = own(await every('listPrompts', 'prompts'));
    for (const [name, args] of prompts) out.got.push(await client.getPrompt({ name: prefix + name, arguments: args }));
    for (const [name, argument, value] of completions) {
      const ref = { type: 'ref/prompt', name: prefix + name };
      out.completed.push(await client.complete({ ref, argument: { name: argument, value } }));
    }
    for (const [name, args] of asks) out.answered.push((await tool(name, args))[0]);
    await client.close();
    return out;
  }
}
