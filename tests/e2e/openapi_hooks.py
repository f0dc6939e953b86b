"""What schemathesis cannot make up: ids that are real, each with the digest that goes with it, and attempts with names of
their own. What is meant to be refused stays as it was made."""

import itertools
import json
import os
import random
import re

import schemathesis

REAL = json.load(open(os.environ["HOLDPOINT_REAL"]))
DICE, NAMES = random.Random(1), itertools.count()
# Each verb has holds of its own that nothing was decided about yet.
FRESH = {verb: iter(holds) for verb, holds in REAL["fresh"].items()}
# What only fits if one knows what it is about.
ODD = {"grant", "confirm", "group"}
DECIDE = {"approve", "reject", "edit"}


def likely(chance):
    return DICE.random() < chance


def name(case):
    """A name that stands for another request already would be all that is looked at; one in ten stays for that."""
    key = (case.headers or {}).get("Idempotency-Key")
    if key and re.fullmatch(r'"?[\w.:-]{1,255}"?', key, re.ASCII) and likely(0.9):
        case.headers["Idempotency-Key"] = f"attempt-{next(NAMES)}"


def decide(case, verb):
    """A real hold with its own digest; what the body says beside is left out now and then, so that some decisions pass."""
    known = next(FRESH.get(verb, iter(())), None) or DICE.choice(REAL["holds"])
    if case.headers:
        case.headers.pop("If-Match", None)
    if not isinstance(case.body, dict):
        return known[0]
    if verb in DECIDE:
        case.body["digest"] = known[1]
    if likely(0.7):
        case.body = {member: value for member, value in case.body.items() if member not in ODD}
    if verb == "edit" and likely(0.7):
        case.body["patch"] = [{"op": "replace", "path": "/amountMinor", "value": DICE.randint(5001, 9000)}]
    if verb == "reject" and "reason_code" in case.body:
        # Reasons that say that the agent was wrong would spend its trust, and nobody could be given a grant any more.
        case.body["reason_code"] = DICE.choice(["not_needed", "wrong_time", "other", "x_local"])
    if verb == "escalate":
        case.body["to"] = "finance"
    return known[0]


def subject(case, path):
    _, _, kind, *more = path.split("/")
    if "id" in (case.path_parameters or {}) and kind in REAL:
        verb = more[1] if case.method == "POST" and kind == "holds" else None
        known = REAL["undoable"] if path.endswith("/undo") and likely(0.5) else REAL[kind]
        case.path_parameters["id"] = decide(case, verb) if verb else DICE.choice(known)[0]
    elif path == "/v1/grants" and isinstance(case.body, dict):
        case.body["hold"], case.body["digest"] = DICE.choice(REAL["approved"])
    elif path in ("/v1/kill", "/v1/resume") and isinstance(case.body, dict):
        # Nothing else here needs this tool.
        case.body["scope"] = "tool:tickets"
    elif path == "/v1/explain" and isinstance(case.body, dict) and likely(0.5):
        case.body = {"call": DICE.choice(REAL["calls"])[0]}
    elif path == "/v1/holds/batch" and isinstance(case.body, dict):
        case.body["cluster"] = DICE.choice(REAL["clusters"])[0]
        case.body["items"] = [dict(zip(("id", "digest"), DICE.choice(REAL["holds"])))]


@schemathesis.hook
def before_call(context, case, kwargs):
    name(case)
    if case.meta is not None and case.meta.generation.mode.is_positive and likely(0.8):
        subject(case, case.path)
        # Nobody was given a cursor that is made up.
        if case.query and likely(0.8):
            case.query.pop("cursor", None)
