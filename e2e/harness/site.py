"""A small web site on this machine, at another origin than Sidekey's: an MCP client's, or an attacker's."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit

PAGE = "<!doctype html><meta charset=utf-8><title>Another site</title><h1>You can close this window.</h1>"


class Site(ThreadingHTTPServer):
    """Shows a page at every address, and writes down what was asked for."""

    daemon_threads = True

    def __init__(self, pages: dict[str, str] | None = None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages = pages or {}
        # Method and target of each request, without those for an icon.
        self.requests: list[str] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def queries(self, path: str) -> list[dict[str, str]]:
        """What came with each GET of this path."""
        gets = [urlsplit(request.removeprefix("GET ")) for request in self.requests if request.startswith("GET ")]
        return [
            {name: value for name, [value] in parse_qs(get.query).items()} for get in gets if get.path == path
        ]


class Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self._answer()

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        if path != "/favicon.ico":
            self.server.requests.append(f"{self.command} {self.path}")
        body = self.server.pages.get(path, PAGE).encode()
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
