// What the Node clients share: the URL and key they are given, and the calls they make when they are told to.
import readline from 'node:readline';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

export const [url, tool, given] = process.argv.slice(2);
export const args = JSON.parse(given);
export const headers = { Authorization: `Bearer ${process.env.HOLDPOINT_KEY}` };

// The packages are installed away from the sources.
const require = createRequire(process.env.HOLDPOINT_NODE_MODULES + '/');
export const load = (name) => import(pathToFileURL(require.resolve(name)));

/** Calls once for every line on stdin, in one session, and prints what came. */
export async function obey(call) {
  for await (const _ of readline.createInterface({ input: process.stdin })) {
    const answer = await call();
    console.log(JSON.stringify({ error: answer.isError === true, text: answer.content[0]?.text ?? '' }));
  }
}
