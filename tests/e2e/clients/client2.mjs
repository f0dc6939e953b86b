// npm `@modelcontextprotocol/client` 2.x; MODE says which era it prefers.
import { url, tool, args, headers, load, obey } from './talk.mjs';

const { Client, StreamableHTTPClientTransport } = await load('@modelcontextprotocol/client');

const versionNegotiation = { mode: process.env.MODE };
const client = new Client({ name: 'e2e', version: '1.0.0' }, process.env.MODE ? { versionNegotiation } : {});
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
await client.listTools();
await obey(() => client.callTool({ name: tool, arguments: args }));
await client.close();
