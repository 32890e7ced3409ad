// client2.mjs PLANS MODE: `@modelcontextprotocol/client` 2.x. MODE `legacy` is its default, `auto` chooses the newest
// revision that both sides know.
import { load, run } from './plan.mjs';

const { Client, StreamableHTTPClientTransport: Http } = load('@modelcontextprotocol/client');
const { StdioClientTransport: Stdio } = load('@modelcontextprotocol/client/stdio');
const mode = process.argv[3];
await run({
  make: (capabilities) => new Client({ name: 'fleet-tests', version: '0' }, { capabilities, versionNegotiation: { mode } }),
  handle: (client, method, answer) => client.setRequestHandler(method, answer),
  call: (client, params, options) => client.callTool(params, options),
  Http, Stdio,
});
