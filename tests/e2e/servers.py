"""The servers behind the proxy: a REST service, a modern MCP server, and a counting relay before a server that keeps no books."""

import http.client
import http.server
import json
import socket
import threading
import time


class Quiet(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def rest_service():
    """Orders and refunds; every refund that was made stands in `made`."""
    made = []

    class Rest(Quiet):
        def do_GET(self):
            self.answer(200, json.dumps({"path": self.path}).encode(), [("content-type", "application/json")])

        def do_POST(self):
            made.append({"path": self.path, "body": json.loads(self.body()), "auth": self.headers.get("authorization")})
            answer = {"refund": f"rf_{len(made)}"}
            self.answer(201, json.dumps(answer).encode(), [("content-type", "application/json")])

    return serve(Rest), made


def relay(to_port):
    """Passes everything on, byte for byte, and keeps the names of the tools that were called."""
    called = []

    class Relay(Quiet):
        def pass_on(self):
            body = self.body()
            try:
                message = json.loads(body) if body else {}
            except ValueError:
                message = {}
            if message.get("method") == "tools/call":
                called.append(message["params"]["name"])
            upstream = http.client.HTTPConnection("127.0.0.1", to_port, timeout=60)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
            headers["host"] = f"127.0.0.1:{to_port}"
            upstream.request(self.command, self.path, body=body or None, headers=headers)
            answer = upstream.getresponse()
            kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in ("transfer-encoding", "content-length", "connection")]
            if "text/event-stream" not in (answer.getheader("content-type") or ""):
                return self.answer(answer.status, answer.read(), kept)
            self.send_response(answer.status)
            for name, value in kept:
                self.send_header(name, value)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            while chunk := answer.read1(65536):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

        do_GET = do_POST = do_DELETE = pass_on

    return serve(Relay), called


def modern_mcp_server():
    """A server of the modern era on the official SDK; `sent` is what it really did."""
    import asyncio

    import uvicorn
    from mcp.server.mcpserver import MCPServer

    sent = []
    server = MCPServer("payments", log_level="ERROR")

    @server.tool(description="Read the balance of an account")
    def balance(account: str) -> str:
        return f"{account}: 100.00"

    @server.tool(description="Send money to an account")
    def transfer(account: str, amount_minor: int) -> str:
        sent.append((account, amount_minor))
        return f"sent {amount_minor} to {account}, transfer {len(sent)}"

    port = free_port()
    config = uvicorn.Config(server.streamable_http_app(), host="127.0.0.1", port=port, log_level="error")
    app = uvicorn.Server(config)
    threading.Thread(target=lambda: asyncio.run(app.serve()), daemon=True).start()
    return port, sent


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for_port(port):
    for _ in range(600):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on {port}")
