// sdk1.mjs PLAN: `@modelcontextprotocol/sdk` 1.x, as most clients use it.
import { load, run } from './plan.mjs';

const { Client } = load('@modelcontextprotocol/sdk/client/index.js');
const { StreamableHTTPClientTransport: Http } = load('@modelcontextprotocol/sdk/client/streamableHttp.js');
const { StdioClientTransport: Stdio } = load('@modelcontextprotocol/sdk/client/stdio.js');
await run(new Client({ name: 'fleet-tests', version: '0' }), { Http, Stdio });
