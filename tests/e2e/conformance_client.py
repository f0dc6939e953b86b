"""The client that the conformance suite judges: PyPI `mcp` 2.x with no more than the scenarios ask for.

    python conformance_client.py direct  TOOLS URL     notes the tools that it sees in the file TOOLS
    python conformance_client.py through TOOLS URL     starts Holdpoint before URL, with the tools of TOOLS in its lock

The suite gives the URL last, and the scenario in the environment.
"""

import asyncio
import contextlib
import http.server
import json
import os
import pathlib
import sys
import threading

import httpx2
import mcp_types as t
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

import gateway

SCENARIO = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
VERSION = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "")
CONTEXT = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")


class Noting(httpx2.AsyncHTTPTransport):
    """Keeps the definitions of tools as the server sent them, before the SDK leaves out those that it does not like."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    async def handle_async_request(self, request):
        answer = await super().handle_async_request(request)
        if b'"tools/list"' not in request.content:
            return answer
        body = b"".join([part async for part in answer.stream])
        for line in (b"data: " + body if body.startswith(b"{") else body).splitlines():
            if line.startswith(b"data:"):
                with contextlib.suppress(ValueError, KeyError):
                    self.seen.extend(json.loads(line[5:])["result"]["tools"])
        return httpx2.Response(answer.status_code, headers=answer.headers, content=body, request=request)


def value_for(schema):
    kind = schema.get("type") if isinstance(schema, dict) else None
    return {"number": 2, "integer": 2, "boolean": True, "array": [], "object": {}}.get(kind, "text")


def calls(tools):
    """What to call with which arguments: what the scenario says, or each tool that is offered, once."""
    if "toolCalls" in CONTEXT:
        return [(call["name"], call["arguments"]) for call in CONTEXT["toolCalls"]]
    return [(tool.name, {k: value_for(v) for k, v in (tool.input_schema.get("properties") or {}).items()}) for tool in tools]


class Streams:
    """In the older era the SDK opens the stream of its session beside what it does. A call that overtakes it would look
    to the suite as if the client came back before its time, so calls wait until it is there."""

    def __init__(self, http):
        self.session, self.open = False, asyncio.Event()
        http.event_hooks["response"].append(self.see)

    async def see(self, answer):
        self.session |= "mcp-session-id" in answer.headers
        if answer.request.method == "GET":
            self.open.set()

    async def wait(self):
        if self.session and VERSION < "2026":
            await asyncio.wait_for(self.open.wait(), 10)


async def agree(context, params):
    return t.ElicitResult(action="accept", content={"confirmed": True})


async def no_roots(context):
    return t.ListRootsResult(roots=[])


async def no_model(context, params):
    return t.ErrorData(code=-1, message="there is no model here")


async def said(what, answer):
    """Prints what an answer was, error or not: what the client got is compared too."""
    try:
        print(what, (await answer).model_dump_json(by_alias=True, exclude_none=True))
    except MCPError as e:
        print(what, "error", e.error.model_dump_json(by_alias=True, exclude_none=True))
    except ValidationError as e:
        print(what, "not understood", e.title)


async def talk(url, http):
    mode = "auto" if VERSION >= "2026" else "legacy"
    streams = Streams(http)
    asked = {"elicitation_callback": agree, "list_roots_callback": no_roots, "sampling_callback": no_model}
    async with Client(streamable_http_client(url, http_client=http), mode=mode, **asked) as client:
        tools = (await client.list_tools()).tools
        await streams.wait()
        for name, arguments in calls(tools):
            await said(name, client.call_tool(name, arguments))
        if client.server_capabilities and client.server_capabilities.resources is not None:
            for resource in (await client.list_resources()).resources:
                await said(resource.uri, client.read_resource(resource.uri))
        if client.server_capabilities and client.server_capabilities.prompts is not None:
            for prompt in (await client.list_prompts()).prompts:
                given = {a.name: "text" for a in prompt.arguments or ()}
                await said(prompt.name, client.get_prompt(prompt.name, given))


def stand_in(tools):
    """A server that only lists these tools: `holdpoint lock` must not be a client that the suite judges."""

    class Lists(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            answer = {"jsonrpc": "2.0", "id": asked.get("id")}
            if asked["method"] == "initialize":
                about = {"capabilities": {"tools": {}}, "serverInfo": {"name": "stand-in", "version": "1"}}
                answer["result"] = {"protocolVersion": "2025-11-25", **about}
            elif asked["method"] == "tools/list":
                answer["result"] = {"tools": tools, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
            else:
                answer["error"] = {"code": -32601, "message": "not found"}
            body = json.dumps(answer).encode() if "id" in asked else b""
            self.send_response(200 if body and "result" in answer else 404 if body else 202)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Lists)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/mcp"


async def main():
    how, noted, url = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    if how == "direct":
        seen = []
        try:
            async with httpx2.AsyncClient(transport=Noting(seen), timeout=20) as http:
                await talk(url, http)
        finally:
            noted.write_text(json.dumps(seen))
        return
    lock_from = {"under-test": stand_in(json.loads(noted.read_text()))}
    with gateway.Gateway({"under-test": {"url": url}}, lock_from=lock_from) as g:
        try:
            async with httpx2.AsyncClient(headers={"authorization": f"Bearer {gateway.KEY}"}, timeout=20) as http:
                await talk(g.url("under-test"), http)
        except BaseException:
            print(g.said()[-4000:], file=sys.stderr)
            raise


if __name__ == "__main__":
    asyncio.run(main())
