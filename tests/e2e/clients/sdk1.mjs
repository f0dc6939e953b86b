// npm `@modelcontextprotocol/sdk` 1.x.
import { url, tool, args, headers, load, obey } from './talk.mjs';

const { Client } = await load('@modelcontextprotocol/sdk/client/index.js');
const { StreamableHTTPClientTransport } = await load('@modelcontextprotocol/sdk/client/streamableHttp.js');

const client = new Client({ name: 'e2e', version: '1.0.0' });
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
// Answers are checked against the output schemas of a list.
await client.listTools();
await obey(() => client.callTool({ name: tool, arguments: args }));
await client.close();
