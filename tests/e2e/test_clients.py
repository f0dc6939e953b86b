"""Unchanged clients (curl, the official MCP client) before the real binary before real servers.

For each: list, call, a held call, approval over the API and over the CLI, the real answer when the call is repeated,
and an upstream that has seen exactly one request.
"""

import asyncio
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
import urllib.request

import servers
import gateway
from gateway import BINARY, KEY, MAYA

HERE = pathlib.Path(__file__).resolve().parent

CONFIG = gateway.CONFIG + """\
  shop:
    kind: rest
    owner: leads
    mount: /shop
    upstream: { url: "http://127.0.0.1:REST" }
    operations:
      get_order: { match: GET /orders/:orderId, effect: read }
      refund:
        match: POST /orders/:orderId/refunds
        effect: [money, irreversible]
        schema: refund.json
        cost: { amount: /amountMinor, currency: /currency }
  payments:
    kind: mcp
    owner: leads
    mount: /payments
    upstream: { url: "http://127.0.0.1:MODERN/mcp" }
    lock: payments.lock.json
    operations: { balance: { effect: read }, transfer: { effect: irreversible } }
  everything:
    kind: mcp
    owner: leads
    mount: /everything
    upstream: { url: "http://127.0.0.1:RELAY/mcp" }
    lock: everything.lock.json
    operations: { "get-*": { effect: write }, echo: { effect: irreversible } }
"""

POLICIES = """
@id("bots-call") permit (principal in Holdpoint::AgentGroup::"bots", action in Holdpoint::Action::"call", resource);
@id("review") @reason("A person looks at what cannot be undone.") @approvers("leads")
forbid (principal, action in Holdpoint::Action::"effect:irreversible", resource)
unless { context.approval.granted };
@id("leads") permit (principal in Holdpoint::Team::"leads", action in Holdpoint::Action::"admin", resource);
"""

REFUND = {
    "type": "object",
    "properties": {"amountMinor": {"type": "integer", "minimum": 1}, "currency": {"type": "string"}},
    "required": ["amountMinor", "currency"],
}


class World:
    """Everything stands up once for all tests."""

    def __init__(self):
        self.dir = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.dir.name)
        self.rest, self.refunds = servers.rest_service()
        self.modern_port, self.sent = servers.modern_mcp_server()
        node = ["node", "-r", str(HERE / "loopback.cjs")]
        modules = pathlib.Path(os.environ["HOLDPOINT_NODE_MODULES"])
        everything = modules / "@modelcontextprotocol/server-everything/dist/index.js"
        env = dict(os.environ, PORT="0")
        self.node = subprocess.Popen([*node, str(everything), "streamableHttp"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=env, text=True)
        port = next(int(line.split()[1]) for line in self.node.stderr if line.startswith("LISTENING"))
        self.relay, self.called = servers.relay(port)
        self.env = dict(os.environ, BOT_KEY=KEY, MAYA_TOKEN=MAYA)
        self.write()
        servers.wait_for_port(self.modern_port)
        locked = self.run("lock")
        assert locked.returncode == 0, locked.stdout + locked.stderr
        checked = self.run("check", "--write-schema")
        assert checked.returncode == 0, checked.stdout + checked.stderr
        self.proxy = subprocess.Popen([BINARY, "serve"], cwd=self.path, env=self.env, stderr=subprocess.PIPE, text=True)
        serving = next(json.loads(line) for line in self.proxy.stderr if '"serving"' in line)
        self.agents, self.admin = serving["agents"], serving["admin"]
        # Somebody must read the log, or the pipe fills.
        import threading

        threading.Thread(target=self.proxy.stderr.read, daemon=True).start()

    def write(self):
        config = CONFIG.replace("REST", str(self.rest.server_port)).replace("MODERN", str(self.modern_port))
        (self.path / "holdpoint.yaml").write_text(config.replace("RELAY", str(self.relay.server_port)))
        (self.path / "policies").mkdir()
        (self.path / "policies/policies.cedar").write_text(textwrap.dedent(POLICIES))
        (self.path / "refund.json").write_text(json.dumps(REFUND))

    def run(self, *args, **more):
        return subprocess.run([BINARY, *args], cwd=self.path, env=self.env, capture_output=True, text=True, timeout=60, **more)

    def cli(self, *args):
        env = dict(self.env, HOLDPOINT_TOKEN=MAYA)
        command = [BINARY, "holds", *args, "--url", f"http://{self.admin}"]
        return subprocess.run(command, cwd=self.path, env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)

    def api(self, method, path, body=None):
        headers = {"authorization": f"Bearer {MAYA}", "content-type": "application/json"}
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"http://{self.admin}{path}", data=data, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def approve_by_api(self, hold):
        digest = self.api("GET", f"/v1/holds/{hold}")["digest"]
        return self.api("POST", f"/v1/holds/{hold}/approve", {"digest": digest})

    def curl(self, *args):
        command = ["curl", "-sS", "-i", "-H", f"Authorization: Bearer {KEY}", *args]
        head, _, body = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.partition("\n\n")
        lines = head.splitlines()
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        return int(lines[0].split()[1]), headers, body

    def stop(self):
        self.proxy.terminate()
        code = self.proxy.wait(timeout=40)
        self.node.kill()
        self.node.wait()
        return code


class Clients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.w = World()

    @classmethod
    def tearDownClass(cls):
        code = cls.w.stop()
        verified = cls.w.run("audit", "verify", "state")
        cls.w.dir.cleanup()
        assert code == 0, f"SIGTERM ended with {code}"
        assert verified.returncode == 0, verified.stdout + verified.stderr

    def test_curl_and_a_rest_service(self):
        w = self.w
        status, headers, body = w.curl(f"http://{w.agents}/shop/orders/o_1")
        self.assertEqual((status, headers["holdpoint-decision"]), (200, "allowed"), body)
        refund = ["-X", "POST", "-H", "Content-Type: application/json", "-d", '{"amountMinor": 900, "currency": "EUR"}']
        url = f"http://{w.agents}/shop/orders/o_1/refunds"
        status, headers, body = w.curl(*refund, url)
        self.assertEqual((status, json.loads(body)["code"]), (409, "held"), body)
        self.assertEqual(w.refunds, [])
        w.approve_by_api(json.loads(body)["hold"])
        status, headers, body = self.until_done(lambda: w.curl(*refund, url))
        self.assertEqual((status, json.loads(body)), (201, {"refund": "rf_1"}))
        w.curl(*refund, url)
        self.assertEqual(len(w.refunds), 1)

    def test_curl_and_the_modern_mcp_server(self):
        w = self.w
        meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": {"name": "curl", "version": "8"}}
        def ask(method, params, name=None):
            message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": dict(params, _meta=meta)}
            headers = ["-H", "Content-Type: application/json", "-H", "Accept: application/json, text/event-stream",
                       "-H", "MCP-Protocol-Version: 2026-07-28", "-H", f"Mcp-Method: {method}"]
            if name:
                headers += ["-H", f"Mcp-Name: {name}"]
            status, _, body = w.curl(*headers, "-d", json.dumps(message), f"http://{w.agents}/payments")
            data = [line[5:].strip() for line in body.splitlines() if line.startswith("data:")]
            return status, json.loads(data[-1] if data else body)

        status, answer = ask("tools/list", {})
        self.assertEqual((status, [t["name"] for t in answer["result"]["tools"]]), (200, ["balance", "transfer"]))
        _, answer = ask("tools/call", {"name": "balance", "arguments": {"account": "a_1"}}, "balance")
        self.assertIn("100.00", json.dumps(answer))
        transfer = lambda: ask("tools/call", {"name": "transfer", "arguments": {"account": "curl", "amount_minor": 5}}, "transfer")
        _, answer = transfer()
        self.assertTrue(answer["result"]["isError"])
        hold = answer["result"]["_meta"]["dev.holdpoint/hold"]["holdId"]
        self.assertNotIn(("curl", 5), w.sent)
        w.approve_by_api(hold)
        answer = self.until_done(lambda: transfer()[1])
        self.assertIn("sent 5 to curl", json.dumps(answer))
        self.assertEqual(w.sent.count(("curl", 5)), 1)

    def test_the_official_client_and_the_modern_server(self):
        self.assertEqual(asyncio.run(self.session("payments", "balance", {"account": "a_2"}, "100.00", "transfer", {"account": "py", "amount_minor": 7}, "sent 7 to py", self.approve_by_cli)), ["balance", "transfer"])
        self.assertEqual(self.w.sent.count(("py", 7)), 1)

    def test_the_official_client_and_server_everything(self):
        names = asyncio.run(self.session("everything", "get-sum", {"a": 2, "b": 3}, "5", "echo", {"message": "once"}, "once", lambda hold: self.w.approve_by_api(hold)))
        self.assertIn("echo", names)
        self.assertEqual(self.w.called.count("echo"), 1)

    def approve_by_cli(self, hold):
        shown = self.w.cli("show", hold)
        self.assertEqual(shown.returncode, 0, shown.stderr)
        refused = self.w.cli("approve", hold)
        self.assertNotEqual(refused.returncode, 0, "without a terminal the digest must be given")
        digest = next(word for word in shown.stdout.split() if word.startswith("sha256:"))
        approved = self.w.cli("approve", hold, "--digest", digest)
        self.assertEqual(approved.returncode, 0, approved.stdout + approved.stderr)

    async def session(self, mount, read, read_args, expected, held, held_args, result, approve):
        import httpx2
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client

        http = httpx2.AsyncClient(headers={"authorization": f"Bearer {KEY}"}, timeout=30)
        async with http, Client(streamable_http_client(f"http://{self.w.agents}/{mount}", http_client=http)) as client:
            names = sorted(t.name for t in (await client.list_tools()).tools)
            answer = await client.call_tool(read, read_args)
            self.assertFalse(answer.is_error, answer)
            self.assertIn(expected, answer.content[0].text)
            first = await client.call_tool(held, held_args)
            self.assertTrue(first.is_error)
            self.assertIn("HELD, NOT EXECUTED", first.content[0].text)
            await asyncio.to_thread(approve, first.meta["dev.holdpoint/hold"]["holdId"])
            for _ in range(100):
                last = await client.call_tool(held, held_args)
                if not last.is_error:
                    break
                await asyncio.sleep(0.1)
            self.assertIn(result, last.content[0].text)
            again = await client.call_tool(held, held_args)
            self.assertIn(result, again.content[0].text)
            return names

    def until_done(self, ask):
        for _ in range(100):
            answer = ask()
            if "held" not in json.dumps(answer).lower() and "in_flight" not in json.dumps(answer):
                return answer
            time.sleep(0.1)
        raise AssertionError(f"still held: {answer}")


if __name__ == "__main__":
    unittest.main(verbosity=2)
