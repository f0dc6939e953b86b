"""A server that exists only as a command (npm `server-everything` on stdio), behind the real binary, with unchanged clients.

The official client speaks to it in both eras: it lists, calls, hears of progress, and gets the answer of a held call once.
"""

import asyncio
import os
import pathlib
import unittest

from gateway import HOLD_IRREVERSIBLE, KEY, Gateway

EVERYTHING = pathlib.Path(os.environ["HOLDPOINT_NODE_MODULES"]) / "@modelcontextprotocol/server-everything/dist/index.js"
TOOL = {
    "command": ["node", str(EVERYTHING), "stdio"],
    "operations": {"*": {"effect": "read"}, "echo": {"effect": "irreversible"}},
}


def processes(name):
    """The processes whose command line has `name` in it."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and name.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            pass
    return found


class Stdio(unittest.TestCase):
    def test_the_official_client_in_both_eras(self):
        mark = f"--mark-{os.getpid()}"
        tool = dict(TOOL, command=[*TOOL["command"], mark])
        with Gateway({"everything": tool}, policies=HOLD_IRREVERSIBLE) as gateway:
            for mode, word in (("legacy", "old"), ("2026-07-28", "new")):
                with self.subTest(mode):
                    asyncio.run(self.session(gateway, mode, word))
            self.assertEqual(len(processes(mark)), 1, "more than one child")
        self.assertEqual(processes(mark), [], "a child outlived the proxy")

    async def session(self, gateway, mode, word):
        import httpx2
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client

        http = httpx2.AsyncClient(headers={"authorization": f"Bearer {KEY}"}, timeout=60)
        transport = streamable_http_client(gateway.url("everything"), http_client=http)
        async with http, Client(transport, mode=mode) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            self.assertLessEqual({"echo", "get-sum"}, names)
            answer = await client.call_tool("get-sum", {"a": 2, "b": 3})
            self.assertFalse(answer.is_error, answer)
            self.assertIn("5", answer.content[0].text)
            prompts = (await client.list_prompts()).prompts
            self.assertTrue(prompts)
            resources = (await client.list_resources()).resources
            self.assertTrue((await client.read_resource(resources[0].uri)).contents)
            steps = []

            async def progress(step, total, text):
                steps.append(step)

            arguments = {"duration": 1, "steps": 4}
            answer = await client.call_tool("trigger-long-running-operation", arguments, progress_callback=progress)
            self.assertFalse(answer.is_error, answer)
            self.assertEqual(steps, [1, 2, 3, 4])
            held = await client.call_tool("echo", {"message": word})
            self.assertIn("HELD, NOT EXECUTED", held.content[0].text)
            await asyncio.to_thread(gateway.approve, held.meta["dev.holdpoint/hold"]["holdId"])
            for _ in range(100):
                last = await client.call_tool("echo", {"message": word})
                if not last.is_error:
                    break
                await asyncio.sleep(0.1)
            self.assertIn(word, last.content[0].text)


if __name__ == "__main__":
    unittest.main(verbosity=2)
