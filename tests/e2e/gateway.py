"""Holdpoint between a client and MCP servers: the folder, the process, the admin API, and a relay for clients without a key."""

import asyncio
import contextlib
import json
import os
import pathlib
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

BINARY = os.environ["HOLDPOINT_BIN"]
KEY = "agent-key-of-the-e2e-tests"
MAYA = "maya-token-of-the-e2e-tests"

CONFIG = """
version: 1
listen: { agents: 127.0.0.1:0, admin: 127.0.0.1:0 }
state: { path: state }
policies: { dir: policies }
identity:
  org: e2e
  agents: { api_keys: [ { agent: bot, group: bots, key: { env: BOT_KEY } } ] }
  reviewers: { tokens: [ { user: maya, groups: [leads], mfa: true, token: { env: MAYA_TOKEN } } ] }
workflows: { work: { owner: leads } }
reviews: { inline_wait: 0s }
tools:
"""

ALLOW_ALL = """
@id("bots-call") permit (principal in Holdpoint::AgentGroup::"bots", action in Holdpoint::Action::"call", resource);
@id("leads") permit (principal in Holdpoint::Team::"leads", action in Holdpoint::Action::"admin", resource);
"""

HOLD_IRREVERSIBLE = (
    ALLOW_ALL
    + """
@id("review") @reason("A person looks at what cannot be undone.") @approvers("leads")
forbid (principal, action in Holdpoint::Action::"effect:irreversible", resource)
unless { context.approval.granted };
"""
)


class Gateway:
    """`with Gateway({"fixture": {"url": …, "operations": {…}}}) as g:` serves each tool at `/name`; `command` in place of `url` is run."""

    def __init__(self, tools, policies=ALLOW_ALL, lock_from=None):
        self.tools, self.policies, self.lock_from = tools, policies, lock_from or {}
        self.env = dict(os.environ, BOT_KEY=KEY, MAYA_TOKEN=MAYA)
        self.env.pop("HOLDPOINT_TOKEN", None)

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.path = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            (self.path / "policies").mkdir()
            (self.path / "policies/policies.cedar").write_text(self.policies)
            # What the lock is made from may be another server that offers the same.
            self.write({name: self.lock_from.get(name, tool.get("url")) for name, tool in self.tools.items()})
            self.run("lock")
            self.write({name: tool.get("url") for name, tool in self.tools.items()})
            self.run("check", "--write-schema")
            self.log = stack.enter_context(open(self.path / "log", "w+"))
            self.process = subprocess.Popen([BINARY, "serve"], cwd=self.path, env=self.env, stderr=self.log)
            stack.callback(self.end)
            self.agents, self.admin = self.ports()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, failed, *_):
        with self.stack:
            code = self.end()
            if failed is None:
                assert code == 0, f"SIGTERM ended with {code}:\n{self.said()[-4000:]}"
                self.run("audit", "verify", "state")

    def write(self, urls):
        # JSON is YAML.
        tools = {}
        for name, tool in self.tools.items():
            at = {"url": urls[name]} if urls[name] else {"command": tool["command"]}
            made = {"kind": "mcp", "owner": "leads", "mount": f"/{name}", "upstream": {**at, **tool.get("upstream", {})}}
            made |= {"lock": f"{name}.lock.json", "operations": tool.get("operations", {"*": {"effect": "read"}})}
            tools[name] = made | {key: tool[key] for key in ("methods",) if key in tool}
        lines = "".join(f"  {name}: {json.dumps(tool)}\n" for name, tool in tools.items())
        (self.path / "holdpoint.yaml").write_text(CONFIG + lines)

    def run(self, *args):
        done = subprocess.run([BINARY, *args], cwd=self.path, env=self.env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"`holdpoint {' '.join(args)}` ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def ports(self):
        for _ in range(600):
            self.log.seek(0)
            for line in self.log.read().splitlines():
                if '"serving"' in line:
                    serving = json.loads(line)
                    return serving["agents"], serving["admin"]
            assert self.process.poll() is None, f"`holdpoint serve` ended with {self.process.returncode}:\n{self.said()}"
            time.sleep(0.02)
        raise AssertionError(f"`holdpoint serve` does not serve:\n{self.said()}")

    def said(self):
        return (self.path / "log").read_text()

    def end(self):
        self.process.terminate()
        try:
            return self.process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def url(self, name):
        return f"http://{self.agents}/{name}"

    def api(self, method, path, body=None):
        headers = {"authorization": f"Bearer {MAYA}", "content-type": "application/json"}
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"http://{self.admin}{path}", data=data, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def approve(self, hold):
        digest = self.api("GET", f"/v1/holds/{hold}")["digest"]
        return self.api("POST", f"/v1/holds/{hold}/approve", {"digest": digest})

    @contextlib.contextmanager
    def approver(self, after):
        """Approves every hold `after` seconds, as a quick person would."""
        stop, seen, mistakes = threading.Event(), {}, []

        def work():
            while not stop.wait(0.05):
                try:
                    for hold in self.api("GET", "/v1/holds?state=held")["items"]:
                        first = seen.setdefault(hold["id"], time.monotonic())
                        if time.monotonic() - first >= after:
                            self.approve(hold["id"])
                except urllib.error.HTTPError as e:
                    # One that was withdrawn meanwhile is no mistake.
                    if e.code not in (404, 409, 410):
                        mistakes.append(f"{e}: {e.read().decode()}")
                except OSError as e:
                    mistakes.append(str(e))

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield seen
        finally:
            stop.set()
            thread.join()
        assert not mistakes, mistakes


class Relay:
    """Puts the key of an agent into every request, and changes no other byte: for clients that cannot send one."""

    def __init__(self, to, key=KEY):
        host, _, port = to.rpartition(":")
        self.to, self.line = (host, int(port)), f"Authorization: Bearer {key}\r\n".encode()

    def __enter__(self):
        self.loop, ready = asyncio.new_event_loop(), threading.Event()

        async def start():
            self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, limit=1 << 20)
            self.port = self.server.sockets[0].getsockname()[1]
            ready.set()

        def run():
            asyncio.set_event_loop(self.loop)
            self.loop.run_until_complete(start())
            self.loop.run_forever()

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        ready.wait()
        return self

    def __exit__(self, *_):
        async def end():
            self.server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(30)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def serve(self, reader, writer):
        try:
            up_reader, up_writer = await asyncio.open_connection(*self.to)
        except OSError:
            return writer.close()
        back = asyncio.ensure_future(self.copy(up_reader, writer))
        there = asyncio.ensure_future(self.requests(reader, up_writer))
        # When one side ends the connection the other has to notice at once: it may mean that a call is cancelled.
        try:
            await asyncio.wait([back, there], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (back, there):
                task.cancel()
            for end in (up_writer, writer):
                end.close()

    @staticmethod
    async def copy(reader, writer):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    async def requests(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                first, _, fields = head.partition(b"\r\n")
                writer.write(first + b"\r\n" + self.line + fields)
                named = {}
                for field in fields.split(b"\r\n"):
                    name, _, value = field.partition(b":")
                    named[name.strip().lower()] = value.strip().lower()
                if named.get(b"transfer-encoding") == b"chunked":
                    await self.chunks(reader, writer)
                elif length := int(named.get(b"content-length", 0)):
                    writer.write(await reader.readexactly(length))
                await writer.drain()

    @staticmethod
    async def chunks(reader, writer):
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            writer.write(line + await reader.readexactly(size + 2))
            if size == 0:
                return
