"""Cedar as an oracle: ten thousand generated calls, decided by Holdpoint's engine and by Cedar from PyPI `cedarpy`, agree.

The two share the policy files and the generated schema, and nothing else: entities and context are built here from what
`policies/.generated/holdpoint.cedarschema` says they are, all policies are asked, and Cedar checks each question against the
schema. Holdpoint's side is `holdpoint test`: each call is a test that expects the tier and exactly the policies that Cedar
named while approval rose. HOLDPOINT_SEED and HOLDPOINT_CALLS choose others.
"""

import collections
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import tempfile
import unittest
from datetime import datetime, timedelta, timezone

import cedarpy

from gateway import BINARY

ROOT = pathlib.Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("HOLDPOINT_SEED", "20261124"))
CALLS = int(os.environ.get("HOLDPOINT_CALLS", "10000"))
KIND = {"crm": "rest", "tickets": "mcp"}
RUNGS = [("low", False, False), ("medium", True, False), ("high", True, True)]


# What the README says that the stages of a workflow demand.
STAGES = """
@id("stage-assist") forbid (principal, action in Holdpoint::Action::"effect:write", resource)
when { context.call.stage == "assist" } unless { context.approval.granted };
@id("stage-verify") forbid (principal, action in Holdpoint::Action::"effect:write", resource)
when { context.call.stage == "verify" } unless { context.approval.granted };
"""


def named(text):
    return re.findall(r'^@id\("([^"]+)"\)', text, re.M)


def uid(kind, name):
    return {"type": f"Holdpoint::{kind}", "id": name}


def any_agent(r, n):
    agent = {"id": f"agent-{n}", "groups": [g for g in ("support", "reporting") if r.random() < 0.6]}
    agent["org"] = r.choice(["acme", "demo"])
    if r.random() < 0.5:
        agent["owner"] = r.choice(["support-leads", "finance"])
    if r.random() < 0.5:
        agent["onBehalfOf"] = r.choice(["ana", "ann", "bob"])
    if r.random() < 0.7:
        agent["claims"] = {"scope": r.choice(["crm:write", "crm:", "crm", "tickets:read"])}
    return agent


def near(r, *borders):
    """A number at, beside or away from a border."""
    return max(0, r.choice(borders) + r.choice([-1, 0, 1])) if r.random() < 0.7 else r.randrange(0, 130)


def any_input(r, call):
    match call:
        case "crm.get_customer":
            return {"customerId": "c_1"}
        case "crm.get_order":
            return {"orderId": "o_1"}
        case "crm.refund":
            amount = max(1, near(r, 5000, 7999, 8000, 50000) if r.random() < 0.8 else r.randrange(1, 100_000_000))
            more = {"reason": "late"} if r.random() < 0.3 else {}
            return {"customerId": "c_1", "orderId": "o_1", "amountMinor": amount, "currency": "EUR", **more}
        case "crm.update_customer":
            values = {"email": "a@example.org", "phone": "1", "creditLimitMinor": 5}
            return {"customerId": "c_1", **{k: v for k, v in values.items() if r.random() < 0.4}}
        case "tickets.delete_ticket":
            return {"ticketId": "t_1", **({"hard": r.random() < 0.5} if r.random() < 0.7 else {})}
        case "tickets.add_comment":
            return {"ticketId": "t_1", "text": "hello"}
        case "tickets.get_ticket":
            return {"ticketId": "t_1"}
        case "tickets.search_tickets":
            return {"query": "late"}


CALLABLE = "crm.get_customer crm.get_order crm.refund crm.refund crm.refund crm.update_customer tickets.delete_ticket".split()
CALLABLE += "tickets.add_comment tickets.get_ticket tickets.search_tickets".split()


def any_test(r, agents, n):
    """A test as `*.test.yaml` writes it, without what is expected."""
    call = r.choice(CALLABLE)
    now = datetime(2025, 12, 1, tzinfo=timezone.utc) + timedelta(minutes=r.randrange(0, 90 * 1440))
    scopes = {}
    for scope in ("step", "run", "user", "org"):
        scopes[scope] = {"usedPct": near(r, 81, 90, 100) if r.random() < 0.4 else 10}
        if r.random() < 0.4:
            scopes[scope]["remainingMinor"] = r.choice([499, 500, 501])
    workflow = {"name": "refunds", "stage": r.choice(["assist", "verify", "execute", "checkpointed"])}
    if r.random() < 0.5:
        workflow["step"] = r.choice(["look", "refund"])
    return {
        "name": f"{n}",
        "call": call,
        "input": any_input(r, call),
        "agent": r.choice(agents),
        "workflow": workflow,
        "now": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "budget": scopes,
        "history": {
            "callsThisRun": r.randrange(0, 50),
            "callsLastHour": r.choice([0, 1, 2, 3]),
            "deniedLastHour": r.choice([0, 2, 3]),
            "sumMinorToday": r.randrange(0, 10**9),
            "firstTimeTarget": r.random() < 0.15,
        },
        "trust": {"score": min(100, near(r, 39, 40, 50)), "surprises7d": r.choice([0, 1, 2, 3])},
        "evidence": [e for e in ("ticket", "order", "photo") if r.random() < 0.3],
        "sourceIp": r.choice(["127.0.0.1", "10.1.2.3", "10.255.0.1", "192.168.0.9", "::1", "2001:db8::5"]),
    }


def entities(agents):
    for a in agents:
        parents = [uid("AgentGroup", g) for g in a["groups"]] + [uid("Org", a["org"])]
        owner = {"owner": {"__entity": uid("Team", a["owner"])}} if "owner" in a else {}
        yield {"uid": uid("Agent", a["id"]), "attrs": owner, "parents": parents, "tags": a.get("claims", {})}
    for tool, kind in KIND.items():
        classes = {"crm": ["pii"], "tickets": []}[tool]
        owner = {"__entity": uid("Team", "support-leads")}
        attrs = {"kind": kind, "env": "prod", "owner": owner, "dataClasses": classes}
        yield {"uid": uid("Tool", tool), "attrs": attrs, "parents": []}


def extension(function, argument):
    return {"__extn": {"fn": function, "arg": argument}}


def question(test, granted, dual):
    now = datetime.strptime(test["now"], "%Y-%m-%dT%H:%M:%SZ")
    call = {
        "workflow": test["workflow"]["name"],
        "stage": test["workflow"]["stage"],
        "now": extension("datetime", test["now"]),
        "hourUtc": now.hour,
        "weekday": now.isoweekday(),
        "evidence": test["evidence"],
        "sourceIp": extension("ip", test["sourceIp"]),
    }
    if "step" in test["workflow"]:
        call["step"] = test["workflow"]["step"]
    if "onBehalfOf" in test["agent"]:
        call["onBehalfOf"] = {"__entity": uid("User", test["agent"]["onBehalfOf"])}
    budget = dict(test["budget"], worstPct=max(m["usedPct"] for m in test["budget"].values()))
    return {
        "principal": f'Holdpoint::Agent::"{test["agent"]["id"]}"',
        "action": f'Holdpoint::Action::"{test["call"]}"',
        "resource": f'Holdpoint::Tool::"{test["call"].split(".")[0]}"',
        "context": {
            "input": test["input"],
            "call": call,
            "approval": {"granted": granted, "dual": dual},
            "budget": budget,
            "history": test["history"],
            "trust": test["trust"],
        },
    }


def climb(answers, ids):
    """The tier, and the policies behind it, from Cedar's answers with rising approval."""
    forbids = []
    for (tier, _, _), answer in zip(RUNGS, answers):
        assert not answer.diagnostics.errors, answer.diagnostics.errors
        decided = [ids[int(p.removeprefix("policy"))] for p in answer.diagnostics.reasons]
        if answer.decision == cedarpy.Decision.Allow:
            return tier, decided if tier == "low" else forbids
        forbids += [p for p in decided if p not in forbids]
    return "deny", decided


def site(folder):
    """The demo's configuration over the shipped policies and those of the oracle."""
    for name in ("policies", "schemas", "deploy"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "tests/e2e/oracle.cedar", folder / "policies/oracle.cedar")
    secrets = folder / "deploy/demo/secrets"
    secrets.mkdir(exist_ok=True)
    for name in ("support-bot", "report-bot", "maya", "li", "sam", "omar", "crm"):
        (secrets / name).write_text(f"{name}-0123456789-0123456789")
    return folder / "deploy/demo/holdpoint.yaml"


class Oracle(unittest.TestCase):
    def test_holdpoint_decides_as_cedar_does(self):
        r = random.Random(SEED)
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary)
            config = site(folder)
            text = "".join(p.read_text() for p in sorted((folder / "policies").glob("*.cedar")))
            schema = (folder / "policies/.generated/holdpoint.cedarschema").read_text()
            text += STAGES
            ids = named(text)
            agents = [any_agent(r, n) for n in range(60)]
            agents[3] = {"id": "agent-3", "groups": [], "org": "demo", "owner": "support-leads"}
            tests = [any_test(r, agents, n) for n in range(CALLS)]
            asked = [question(t, granted, dual) for t in tests for _, granted, dual in RUNGS]
            answers = cedarpy.is_authorized_batch(asked, text, list(entities(agents)), schema)
            for n, test in enumerate(tests):
                tier, because = climb(answers[3 * n : 3 * n + 3], ids)
                test["expect"] = {"tier": tier, "because": because}
            # Every policy of agents, and every tier, must have had its say, or the agreement is about nothing.
            tiers = collections.Counter(t["expect"]["tier"] for t in tests)
            decided = collections.Counter(p for t in tests for p in t["expect"]["because"])
            of_people = named((folder / "policies/people.cedar").read_text())
            self.assertEqual(set(tiers), {"low", "medium", "high", "deny"})
            self.assertEqual(set(ids) - set(of_people) - set(decided), set())

            # A file has a bound, too.
            (folder / "tests").mkdir()
            for at in range(0, CALLS, 1000):
                some = json.dumps({"version": 1, "tests": tests[at : at + 1000]})
                (folder / f"tests/{at}.test.yaml").write_text(some)
            args = ["test", str(folder / "tests"), "--json", "--config", str(config), "--policies", str(folder / "policies")]
            ran = subprocess.run([BINARY, *args], capture_output=True, text=True, timeout=600)
            self.assertTrue(ran.stdout, ran.stderr)
            said = json.loads(ran.stdout)
            ended = [e for suite in said["suites"] for e in suite["tests"]]
            otherwise = [(tests[int(e["name"])], e["problems"]) for e in ended if not e["ok"]]
            self.assertEqual((otherwise[:3], len(ended), ran.returncode), ([], CALLS, 0), f"seed {SEED}")
            print(f"seed {SEED}: {CALLS} calls at 3 rungs agree: {dict(tiers)}; {dict(decided)}")


if __name__ == "__main__":
    unittest.main()
