// client2.mjs PLAN MODE: `@modelcontextprotocol/client` 2.x. MODE `legacy` is its default, `auto` chooses the newest
// revision that both sides know.
import { load, run } from './plan.mjs';

const { Client, StreamableHTTPClientTransport: Http } = load('@modelcontextprotocol/client');
const { StdioClientTransport: Stdio } = load('@modelcontextprotocol/client/stdio');
const mode = process.argv[3];
const client = new Client({ name: 'fleet-tests', version: '0' }, { versionNegotiation: { mode } });
await run(client, { Http, Stdio });
