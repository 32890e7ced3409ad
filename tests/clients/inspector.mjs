// inspector.mjs PLANS MODE: `@modelcontextprotocol/inspector --cli`, which is started for every request. It has no options for
// completions, shows no progress and cannot be asked. See plan.py for the plans; their targets are URLs.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const program = `${process.env.CLIENTS}/node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js`;

// An answer that is an error of a tool ends the program with 5: it is printed all the same.
async function request(target, method, ...options) {
  const args = [program, '--cli', target.url, '--protocol-era', process.argv[3], '--format', 'json', '--quiet', '--method', method];
  const done = promisify(execFile)(process.execPath, [...args, ...options], { maxBuffer: 2 ** 24 });
  const { stdout } = await done.catch((e) => (e.code === 5 ? e : Promise.reject(e)));
  return JSON.parse(stdout).result;
}

async function one({ target, prefix, calls, reads, prompts }) {
  const own = (items) => items.filter((x) => x.name.startsWith(prefix)).map((x) => ({ ...x, name: x.name.slice(prefix.length) }));
  const all = (items, ask) => Promise.all(items.map(ask));
  const pairs = (args) => Object.entries(args).flatMap(([k, v]) => ['--prompt-args', `${k}=${v}`]);
  const [tools, resources, templates, listed, called, read, got] = await Promise.all([
    request(target, 'tools/list'),
    request(target, 'resources/list'),
    request(target, 'resources/templates/list'),
    request(target, 'prompts/list'),
    all(calls, ([name, args]) => request(target, 'tools/call', '--tool-name', prefix + name, '--tool-args-json', JSON.stringify(args))),
    all(reads, (uri) => request(target, 'resources/read', '--uri', uri)),
    all(prompts, ([name, args]) => request(target, 'prompts/get', '--prompt-name', prefix + name, ...pairs(args))),
  ]);
  return {
    tools: own(tools.tools), calls: called, resources: resources.resources, templates: templates.resourceTemplates, reads: read,
    prompts: own(listed.prompts), got,
  };
}

const out = [];
for (const plan of JSON.parse(process.argv[2])) out.push(await one(plan));
console.log(JSON.stringify(out));
