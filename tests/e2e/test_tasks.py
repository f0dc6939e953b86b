"""Holds as native tasks, judged by the suite's own `tasks-*` scenarios: the fixture knows no tasks, Holdpoint makes them.

Holdpoint holds the tools of these scenarios, and an approver lets each go after a second.

    python test_tasks.py            the test: what is not green is exactly what `tasks_not_green.yaml` gives a reason for
    python test_tasks.py --report   every check and how it ended
"""

import pathlib
import sys
import unittest

import gateway
import suite
from test_conformance import fixture

HERE = pathlib.Path(__file__).resolve().parent
VERSION = "2026-07-28"
HELD = ["slow_compute", "failing_job", "protocol_error_job", "confirm_delete", "multi_input", "test_tool_with_task"]
SCENARIOS = [
    "tasks-lifecycle",
    "tasks-capability-negotiation",
    "tasks-wire-fields",
    "tasks-request-state-removal",
    "tasks-request-headers",
    "tasks-dispatch-and-envelope",
    "tasks-required-task-error",
    "tasks-status-notifications",
    "tasks-mrtr-input",
    "tasks-mrtr-composition",
]


def judged():
    """Every check of these scenarios through Holdpoint."""
    operations = {name: {"effect": "irreversible"} for name in HELD} | {"*": {"effect": "read"}}
    checks = {}
    with fixture() as port:
        tool = {"url": f"http://127.0.0.1:{port}/mcp", "operations": operations}
        for scenario in SCENARIOS:
            # Each with a Holdpoint that has seen nothing yet: a call that was made before is answered from the books.
            with gateway.Gateway({"fixture": tool}, gateway.HOLD_IRREVERSIBLE) as g, gateway.Relay(g.agents) as relay:
                with g.approver(after=1):
                    checks |= suite.judge_scenario(f"http://127.0.0.1:{relay.port}/fixture", scenario, VERSION).checks
    return checks


def named(key):
    scenario, check, name, nth = key
    return f"{scenario} {check} {name}" + (f" {nth}" if nth > 1 else "")


def not_green(checks):
    return {named(key): said for key, (status, said) in checks.items() if status != "SUCCESS"}


def reasons():
    """`scenario check name: reason`, a line each."""
    lines = (HERE / "tasks_not_green.yaml").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines if line and not line.startswith("#"))


class Tasks(unittest.TestCase):
    maxDiff = None

    def test_what_is_not_green_has_a_reason(self):
        checks = judged()
        self.assertEqual({key[0] for key in checks}, set(SCENARIOS))
        bad, known = not_green(checks), reasons()
        lines = [f"not green, and no reason is given: {name}: {said}" for name, said in bad.items() if name not in known]
        lines += [f"green by now: {name}" for name in known if name not in bad]
        self.assertFalse(lines, "\n".join(["", *lines]))


def report():
    checks = judged()
    green = sum(status == "SUCCESS" for status, _ in checks.values())
    print(f"{green} of {len(checks)} checks are green")
    for key, (status, said) in checks.items():
        print(f"  {status:8} {named(key)}{': ' + ' '.join(said.split()) if status != 'SUCCESS' else ''}")


if __name__ == "__main__":
    if "--report" in sys.argv:
        report()
    else:
        unittest.main(verbosity=2)
