"""The official conformance suite judges a server directly and through Holdpoint, and a client likewise: every check ends alike.

    python test_conformance.py            the tests
    python test_conformance.py --report   what differs, for those who work on it
"""

import contextlib
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import unittest

import gateway
import suite

HERE = pathlib.Path(__file__).resolve().parent

REQUIREMENTS = {"2025-11-25": 30, "2026-07-28": 37}

CLIENT_SCENARIOS = [
    ("tools_call", "2025-11-25"),
    ("sse-retry", "2025-11-25"),
    ("tools_call", "2026-07-28"),
    ("request-metadata", "2026-07-28"),
    ("sep-2322-client-request-state", "2026-07-28"),
    ("http-standard-headers", "2026-07-28"),
    ("http-custom-headers", "2026-07-28"),
    ("http-invalid-tool-headers", "2026-07-28"),
    ("json-schema-ref-no-deref", "2026-07-28"),
]

# Their only tool has a schema that refers to the network: Holdpoint pauses such a tool and does not list it.
PAUSED = ["json-schema-ref-no-deref"]


@contextlib.contextmanager
def fixture():
    """The server of `fixture.py` in a process of its own; its port."""
    process = subprocess.Popen([sys.executable, str(HERE / "fixture.py")], stdout=subprocess.PIPE, text=True)
    try:
        yield int(process.stdout.readline().split()[1])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def server_runs(requirements):
    """The two runs of one set of requirements, and what Holdpoint said."""
    with fixture() as port:
        direct = suite.judge_server(f"http://127.0.0.1:{port}/mcp", requirements)
    with fixture() as port, gateway.Gateway({"fixture": {"url": f"http://127.0.0.1:{port}/mcp"}}) as g:
        with gateway.Relay(g.agents) as relay:
            through = suite.judge_server(f"http://127.0.0.1:{relay.port}/fixture", requirements)
        return direct, through, g.said()


def client_runs(scenario, version):
    """The two runs of one scenario. The direct one notes down which tools it saw: the lock of the other is made of them."""
    with tempfile.TemporaryDirectory() as scratch:
        command = " ".join(map(shlex.quote, (sys.executable, str(HERE / "conformance_client.py"))))
        seen = str(pathlib.Path(scratch) / "tools.json")
        direct = suite.judge_client(f"{command} direct {shlex.quote(seen)}", scenario, version, {})
        through = suite.judge_client(f"{command} through {shlex.quote(seen)}", scenario, version, {})
        return direct, through


class Conformance(unittest.TestCase):
    maxDiff = None

    def judge_server(self, requirements):
        scored = suite.scored(requirements)
        self.assertEqual(len(scored), REQUIREMENTS[requirements])
        direct, through, log = server_runs(requirements)
        self.assertEqual((direct.code, direct.failed(scored)), (0, []), f"the fixture itself: {direct.counted()}")
        self.alike(direct, through, log)
        self.assertEqual(through.code, 0)
        self.assertIn('"fixture.test_simple_text"', log, "the suite went past Holdpoint")

    def alike(self, direct, through, log=""):
        lines = suite.differences(direct, through)
        head = f"{len(lines)} checks end otherwise through Holdpoint (direct {direct.counted()}; through {through.counted()})"
        self.assertFalse(lines, "\n".join([head, *lines, log[-4000:]]))

    def test_a_server_of_2025_11_25(self):
        self.judge_server("2025-11-25")

    def test_a_server_of_2026_07_28(self):
        self.judge_server("2026-07-28")

    def test_clients(self):
        for scenario, version in CLIENT_SCENARIOS:
            with self.subTest(scenario=scenario, version=version):
                direct, through = client_runs(scenario, version)
                self.assertEqual(direct.failed(), [], f"the client itself: {direct.counted()}\n{direct.output[-3000:]}")
                self.assertTrue(direct.checks)
                if scenario in PAUSED:
                    # What it calls is not offered through Holdpoint.
                    self.assertNotEqual(direct.printed, through.printed)
                    direct.printed = through.printed = ""
                self.alike(direct, through, through.output)
                self.assertEqual((direct.code, through.code), (0, 0), through.output)


def report():
    for requirements in REQUIREMENTS:
        direct, through, _ = server_runs(requirements)
        print(f"server {requirements}: direct {direct.counted()} (exit {direct.code}); through {through.counted()} (exit {through.code})")
        for line in suite.differences(direct, through):
            print(f"  {line}")
    for scenario, version in CLIENT_SCENARIOS:
        direct, through = client_runs(scenario, version)
        print(f"client {version} {scenario}: direct {direct.counted()} (exit {direct.code}); through {through.counted()} (exit {through.code})")
        for line in suite.differences(direct, through):
            print(f"  {line}")
        if os.environ.get("VERBOSE"):
            print(through.output)


if __name__ == "__main__":
    if "--report" in sys.argv:
        report()
    else:
        unittest.main(verbosity=2)
