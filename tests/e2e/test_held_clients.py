"""Unchanged clients over a held call, from the call to its final answer, each in an environment of its own.

The first call is held; a person approves; the answer comes when the call is repeated, or by the task where the client
knows tasks; and the server behind has seen exactly one request.
"""

import json
import os
import pathlib
import subprocess
import tempfile
import threading
import time
import unittest

import gateway
import servers
import suite

HERE = pathlib.Path(__file__).resolve().parent
TOOL = "transfer"


def python(environment):
    """The interpreter of one of the environments that `tests/run` makes."""
    return str(pathlib.Path(os.environ["HOLDPOINT_E2E"]) / environment / "bin/python")


class Told:
    """A client that calls when it is told to, and says what came."""

    def __init__(self, command, url, arguments, env=None):
        environment = dict(os.environ, HOLDPOINT_KEY=gateway.KEY, PYTHONPATH=str(HERE / "clients"), **(env or {}))
        command = [*command, url, TOOL, json.dumps(arguments)]
        self.errors = tempfile.TemporaryFile("w+")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
        self.process = subprocess.Popen(command, text=True, env=environment, **pipes)
        # One that hangs is ended, and the test fails.
        self.alarm = threading.Timer(90, self.process.kill)
        self.alarm.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.alarm.cancel()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            pipe.close()

    def call(self):
        self.process.stdin.write("call\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            raise AssertionError(f"the client ended with {self.process.returncode}:\n{self.errors.read()[-4000:]}")
        return json.loads(line)

    def end(self):
        """Closes its session as it would; what it ended with."""
        self.process.stdin.close()
        return self.process.wait(timeout=60)


class HeldClients(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        port, cls.sent = servers.modern_mcp_server()
        servers.wait_for_port(port)
        tool = {"url": f"http://127.0.0.1:{port}/mcp", "operations": {"balance": {"effect": "read"}, TOOL: {"effect": "irreversible"}}}
        cls.g = cls.enterClassContext(gateway.Gateway({"payments": tool}, gateway.HOLD_IRREVERSIBLE))

    def held(self):
        return {hold["id"] for hold in self.g.api("GET", "/v1/holds?state=held")["items"]}

    def new_hold(self, before):
        """The one call that waits for a person and did not before, once it does."""
        for _ in range(600):
            if held := self.held() - before:
                self.assertEqual(len(held), 1, held)
                return held.pop()
            time.sleep(0.05)
        self.fail(f"nothing was held:\n{self.g.said()[-4000:]}")

    def carried(self, account, command, env=None):
        arguments, before = {"account": account, "amount_minor": 7}, self.held()
        with Told(command, self.g.url("payments"), arguments, env) as client:
            first = client.call()
            self.assertTrue(first["error"], first)
            self.assertIn("HELD, NOT EXECUTED", first["text"])
            self.assertNotIn((account, 7), self.sent)
            hold = self.new_hold(before)
            self.assertIn(hold, first["text"])
            self.g.approve(hold)
            # The call is sent when it is approved; until it has ended, the repeated one is told to wait.
            for _ in range(200):
                last = client.call()
                if not last["error"]:
                    break
                time.sleep(0.05)
            self.assertFalse(last["error"], last)
            self.assertIn(f"sent 7 to {account}", last["text"])
            self.assertEqual(client.call(), last)
            self.assertEqual(client.end(), 0)
        self.assertEqual(self.sent.count((account, 7)), 1)

    def test_python_mcp(self):
        self.carried("python-mcp", [python("venv"), str(HERE / "clients/python_mcp.py")])

    def test_openai_agents(self):
        self.carried("openai-agents", [python("agents"), str(HERE / "clients/openai_agents.py")])

    def test_langchain(self):
        self.carried("langchain", [python("langchain"), str(HERE / "clients/langchain_tools.py")])

    def test_npm_sdk_1(self):
        self.carried("sdk-1", [str(suite.NODE), str(HERE / "clients/sdk1.mjs")])

    def test_npm_client_2_as_it_comes(self):
        self.carried("client-2", [str(suite.NODE), str(HERE / "clients/client2.mjs")])

    def test_npm_client_2_in_the_new_era(self):
        self.carried("client-2-auto", [str(suite.NODE), str(HERE / "clients/client2.mjs")], {"MODE": "auto"})

    def test_inspector_completes_a_task(self):
        inspector = suite.MODULES / "@modelcontextprotocol/inspector"
        script = inspector / json.loads((inspector / "package.json").read_text())["bin"]["mcp-inspector"]
        command = [str(suite.NODE), str(script), "--cli", self.g.url("payments"), "--transport", "http", "--protocol-era", "modern"]
        command += ["--header", f"Authorization: Bearer {gateway.KEY}", "--method", "tools/call", "--tool-name", TOOL]
        command += ["--tool-arg", "account=inspector", "amount_minor=7"]
        before = self.held()
        # It keeps a file in the home folder.
        with tempfile.TemporaryDirectory() as home:
            env = dict(os.environ, HOME=home)
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
            with subprocess.Popen(command, env=env, text=True, **pipes) as process:
                try:
                    hold = self.new_hold(before)
                    self.assertNotIn(("inspector", 7), self.sent)
                    self.g.approve(hold)
                    out, errors = process.communicate(timeout=90)
                finally:
                    process.kill()
        self.assertEqual(process.returncode, 0, out + errors)
        self.assertIn("sent 7 to inspector", out)
        self.assertNotIn("HELD", out)
        self.assertEqual(self.sent.count(("inspector", 7)), 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
