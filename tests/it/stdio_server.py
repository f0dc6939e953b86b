"""An MCP server of the old era on standard input and output. It writes down every line that it reads."""

import json
import os
import pathlib
import sys
import time

seen = open("seen.jsonl", "a", buffering=1)
pairs = []


def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def note(text):
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def done(request, text):
    say({"jsonrpc": "2.0", "id": request["id"], "result": {"content": [{"type": "text", "text": text}]}})


def call(request):
    name, arguments = request["params"]["name"], request["params"].get("arguments", {})
    ticket = arguments.get("ticketId", "")
    if ticket == "die":
        os._exit(3)
    if ticket == "wait":
        return
    if ticket == "noise":
        print("this is no JSON")
        say({"jsonrpc": "2.0", "id": "s1", "method": "ping"})
        say({"jsonrpc": "2.0", "id": "s2", "method": "sampling/createMessage", "params": {}})
        say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    if ticket == "huge":
        return done(request, "x" * (40 << 20))
    if ticket.startswith("pair"):
        pairs.append(request)
        if len(pairs) == 2:
            # The second one first.
            done(pairs[1], pairs[1]["params"]["arguments"]["ticketId"])
            done(pairs[0], pairs[0]["params"]["arguments"]["ticketId"])
            pairs.clear()
        return
    if name == "get_ticket" and os.path.exists("ticket.json"):
        return done(request, open("ticket.json").read())
    token = request["params"].get("_meta", {}).get("progressToken")
    if token is not None:
        for step in (1, 2):
            say({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": step}})
    done(request, f"{name} {json.dumps(arguments, sort_keys=True)}")


note(f"started with MODE={os.environ.get('MODE')} and {len(os.environ)} variables, RUST_LOG={os.environ.get('RUST_LOG')}")
note("a line\x1b[31m with \u202e tricks")
pathlib.Path("pids").open("a").write(f"{os.getpid()}\n")
for line in sys.stdin:
    seen.write(line)
    request = json.loads(line)
    if os.environ.get("MODE") == "deaf" and request["method"] == "notifications/initialized":
        time.sleep(60)
    if "id" not in request or "method" not in request:
        continue
    if request["method"] == "initialize":
        about = {"name": "tickets", "version": "1"}
        can = {"tools": {"listChanged": True}}
        say({"jsonrpc": "2.0", "id": request["id"], "result": {"protocolVersion": "2025-06-18", "capabilities": can, "serverInfo": about}})
    elif request["method"] == "tools/list":
        tools = json.load(open("tickets.lock.json"))["tools"].values()
        say({"jsonrpc": "2.0", "id": request["id"], "result": {"tools": [t["definition"] for t in tools]}})
    elif request["method"] == "tools/call":
        call(request)
    else:
        say({"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32601, "message": "Method not found"}})
note("its input was closed")
if os.environ.get("MODE") == "stubborn":
    time.sleep(60)
