"""The admin API against its own OpenAPI document: schemathesis sends what the document allows and what it does not, with
ids that are real, and no answer may be undocumented, of the wrong shape, or a failure of ours."""

import contextlib
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
import urllib.request

from test_browser import World

SCHEMATHESIS = pathlib.Path(sys.executable).with_name("schemathesis")
ORDERS = itertools.count()
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
]
# More finds more: HOLDPOINT_EXAMPLES=500 for an hour of leisure.
EXAMPLES = int(os.environ.get("HOLDPOINT_EXAMPLES", "25"))
SECONDS = 7 * max(EXAMPLES, 25)


class Description(unittest.TestCase):
    def setUp(self):
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.world = World(stack)

    def api(self, method, path, body=None, person="maya"):
        status, answer = self.world.ask(method, f"http://{self.world.admin}/v1{path}", self.world.tokens[person], body)
        self.assertEqual(status, 200, answer)
        return answer

    def seen(self, hold):
        return [hold, self.api("GET", f"/holds/{hold}")["digest"]]

    def fresh(self):
        return self.seen(self.world.refund(f"o_{next(ORDERS)}", 5100))

    def real(self):
        """Holds to be decided, calls to be taken back, a grant, a sample: what ids and digests can stand for."""
        holds = [self.seen(self.world.refund(f"o_{n}", amount)) for n, amount in enumerate([8000, 8100, 88_000, 99_000])]
        done, digest = self.seen(self.world.refund("o_done", 8300))
        grant = {"pins": [{"path": "/orderId", "any": True}]}
        approved = self.api("POST", f"/holds/{done}/approve", {"digest": digest, "grant": grant})
        self.assertEqual(self.world.agent("PATCH", "/customers/c_1", {"email": "new@example.com"})[0], 200)
        told = self.api("GET", "/calls", person="omar")["items"]
        calls = [[item["call_id"], item["digest"]] for item in told]
        undoable = [[item["call_id"], None] for item in told if item["call"]["op"] == "crm.update_customer"]
        samples = [[item["id"], None] for item in self.api("GET", "/samples", person="omar")["items"]]
        return {
            "holds": holds + [[done, digest]],
            "approved": [[done, digest]],
            "fresh": {verb: [self.fresh() for _ in range(12)] for verb in ("approve", "reject", "edit", "withdraw")},
            "calls": calls,
            "undoable": undoable,
            "runs": [[self.api("GET", f"/holds/{done}")["who"]["run"], None]],
            "clusters": [[self.api("GET", f"/holds/{holds[0][0]}")["alike"]["cluster"], None]],
            "grants": [[approved["grant"]["id"], None]],
            "samples": samples or calls,
        }

    def fuzz(self, person):
        """The operations that were answered with success at least once."""
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "real.json").write_text(json.dumps(self.real()))
            bearer = f'auth.openapi.bearer.bearer = "{self.world.tokens[person]}"\n' if person else ""
            (folder / "schemathesis.toml").write_text(f'hooks = "openapi_hooks"\n{bearer}')
            args = [SCHEMATHESIS, "--no-color", "run", f"http://{self.world.admin}/v1/openapi.json", "--seed", "1"]
            args += ["--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES)]
            args += ["--request-timeout", "30", "--no-shrink", "--continue-on-failure", "--report", "ndjson"]
            args += ["--report-ndjson-path", "told"]
            # One streams without an end, one waits as long as it is told to, one ends the server.
            args += [part for name in ("followEvents", "waitForHold", "drain") for part in ("--exclude-operation-id", name)]
            env = dict(os.environ, HOLDPOINT_REAL=str(folder / "real.json"), PYTHONPATH=str(pathlib.Path(__file__).parent))
            done = subprocess.run(args, cwd=folder, env=env, capture_output=True, text=True, timeout=SECONDS)
            self.assertEqual(done.returncode, 0, (done.stdout + done.stderr)[-20_000:])
            told = [json.loads(line).get("ScenarioFinished") for line in (folder / "told").read_text().splitlines()]
        return set().union(*(succeeded(scenario["recorder"]) for scenario in told if scenario))

    def test_a_reviewer_gets_only_what_the_document_says(self):
        done = self.fuzz("maya")
        wanted = {"GET /v1/me", "GET /v1/holds", "GET /v1/holds/{id}", "GET /v1/clusters/{id}"}
        wanted |= {"GET /v1/grants", "GET /v1/grants/{id}", "POST /v1/grants"}
        wanted |= {f"POST /v1/holds/{{id}}/{verb}" for verb in ("approve", "reject", "edit", "claim", "comments", "escalate")}
        self.assertLessEqual(wanted, done)

    def test_so_does_who_runs_the_service(self):
        done = self.fuzz("omar")
        wanted = {"GET /v1/calls", "GET /v1/calls/{id}", "POST /v1/calls/{id}/undo", "DELETE /v1/grants/{id}"}
        wanted |= {"POST /v1/policies/check", "POST /v1/explain", "POST /v1/replay"}
        wanted |= {"GET /v1/policies", "GET /v1/tools/paused", "GET /v1/webhooks"}
        wanted |= {"GET /v1/kill", "POST /v1/kill", "POST /v1/resume", "GET /v1/trust"}
        self.assertLessEqual(wanted, done)

    def test_so_does_a_stranger(self):
        self.assertEqual(self.fuzz(None), set())

    def test_what_streams_and_what_waits_does_so_as_the_document_says(self):
        bearer = {"Authorization": f"Bearer {self.world.tokens['maya']}"}
        at = f"http://{self.world.admin}/v1"
        with urllib.request.urlopen(urllib.request.Request(f"{at}/events?types=hold.*", headers=bearer), timeout=30) as stream:
            self.assertEqual((stream.status, stream.headers["content-type"]), (200, "text/event-stream"))
            hold = self.world.refund("o_stream", 5200)
            line = next(line for line in stream if line.startswith(b"data:"))
            self.assertEqual(json.loads(line[5:])["id"], hold)
        self.assertEqual(self.api("GET", f"/holds/{hold}/wait?timeout=0")["id"], hold)


def succeeded(recorder):
    """Operations that one scenario had an answer of success from."""
    answers = recorder.get("interactions", {}).items()
    good = (case for case, told in answers if told["response"] and told["response"]["status_code"] < 300)
    cases = (recorder["cases"][case]["value"] for case in good)
    return {f"{case['method']} {case['path']}" for case in cases}


if __name__ == "__main__":
    unittest.main()
