"""`holdpoint init` on a real MCP server (npm `server-everything` on stdio): what it drafts passes `check` as it is."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

from gateway import BINARY

MODULES = pathlib.Path(os.environ["HOLDPOINT_NODE_MODULES"])
SERVER = MODULES / "@modelcontextprotocol/server-everything/dist/index.js"


def holdpoint(*args):
    return subprocess.run([BINARY, *args], capture_output=True, text=True, timeout=120)


class Init(unittest.TestCase):
    def test_a_real_server_makes_a_configuration_that_loads(self):
        with tempfile.TemporaryDirectory() as folder:
            made = holdpoint("init", "--json", "--dir", folder, "--mcp-command", f"node '{SERVER}' stdio")
            self.assertEqual(made.returncode, 0, made.stdout + made.stderr)
            tool = json.loads(made.stdout)["tools"][0]
            self.assertEqual(tool["name"], "everything")
            self.assertGreaterEqual(tool["guessed"]["read"], 5)
            config = f"{folder}/holdpoint.yaml"
            for verb in (("check",), ("lock", "--dry-run")):
                ran = holdpoint(*verb, "--config", config)
                self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)


if __name__ == "__main__":
    unittest.main()
