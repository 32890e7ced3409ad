// bare.mjs URL PREFIX: what the gateway at URL names PREFIX + name is named without it here. The suite looks for
// names of its own, so this lets it test a gateway that gives every backend a prefix. Prints `bare: URL`.
import { createServer, request } from 'node:http';

const [url, prefix] = process.argv.slice(2);
const gateway = new URL(url);
const LISTS = ['tools', 'prompts'];
const add = (name) => prefix + name;
const remove = (name) => (name?.startsWith(prefix) ? name.slice(prefix.length) : name);

// A message for the gateway: what it calls or completes has a prefix.
function named(message) {
  const { method, params } = message ?? {};
  if (['tools/call', 'prompts/get'].includes(method) && typeof params?.name === 'string') params.name = add(params.name);
  if (method === 'completion/complete' && typeof params?.ref?.name === 'string') params.ref.name = add(params.ref.name);
  return message;
}

// A message of the gateway: what it lists has none.
function bare(message) {
  for (const list of LISTS) {
    for (const item of Array.isArray(message?.result?.[list]) ? message.result[list] : []) item.name = remove(item.name);
  }
  return message;
}

function rewritten(text, change) {
  let parsed;
  try {
    parsed = JSON.parse(text);
  } catch {
    return text;
  }
  return JSON.stringify(Array.isArray(parsed) ? parsed.map(change) : change(parsed));
}

const line = (text) => (text.startsWith('data:') ? `data: ${rewritten(text.slice(5), bare)}` : text);

async function answer(from, to) {
  const { 'content-length': _, ...headers } = from.headers;
  to.writeHead(from.statusCode, headers);
  to.flushHeaders();
  const stream = headers['content-type']?.startsWith('text/event-stream');
  let rest = '';
  for await (const chunk of from.setEncoding('utf8')) {
    rest += chunk;
    if (!stream) continue;
    const lines = rest.split('\n');
    rest = lines.pop();
    to.write(lines.map((text) => `${line(text)}\n`).join(''));
  }
  to.end(stream ? rest : rewritten(rest, bare));
}

const server = createServer(async (from, to) => {
  let body = '';
  for await (const chunk of from.setEncoding('utf8')) body += chunk;
  body = rewritten(body, named);
  const { 'content-length': _, 'transfer-encoding': __, ...headers } = from.headers;
  if (['tools/call', 'prompts/get'].includes(headers['mcp-method']?.trim()) && headers['mcp-name']) {
    headers['mcp-name'] = headers['mcp-name'].replace(/\S/, (first) => prefix + first);
  }
  if (body) headers['content-length'] = Buffer.byteLength(body);
  const { hostname: host, port, pathname: path } = gateway;
  const through = request({ host, port, path, method: from.method, headers });
  // Whoever hangs up on the one side is hung up on at the other.
  to.on('close', () => through.destroy());
  through.on('response', (response) => answer(response, to).catch(() => to.destroy()));
  through.on('error', () => to.destroy());
  through.end(body);
});
server.listen(0, '127.0.0.1', () => console.log(`bare: http://127.0.0.1:${server.address().port}${gateway.pathname}`));
