// sdk1.mjs PLANS: `@modelcontextprotocol/sdk` 1.x, as most clients use it.
import { load, run } from './plan.mjs';

const { Client } = load('@modelcontextprotocol/sdk/client/index.js');
const { StreamableHTTPClientTransport: Http } = load('@modelcontextprotocol/sdk/client/streamableHttp.js');
const { StdioClientTransport: Stdio } = load('@modelcontextprotocol/sdk/client/stdio.js');
const { CreateMessageRequestSchema, ElicitRequestSchema } = load('@modelcontextprotocol/sdk/types.js');
const schemas = { 'sampling/createMessage': CreateMessageRequestSchema, 'elicitation/create': ElicitRequestSchema };
await run({
  make: (capabilities) => new Client({ name: 'fleet-tests', version: '0' }, { capabilities }),
  handle: (client, method, answer) => client.setRequestHandler(schemas[method], answer),
  call: (client, params, options) => client.callTool(params, undefined, options),
  Http, Stdio,
});
