"""A server in a pod, as its neighbours and its API see it: does what a line on port 3000 says, and answers in a line.

`get URL BEARER`, `connect ADDRESS PORT`, `send ADDRESS PORT` (a datagram), `resolve NAME`. The answer is JSON: what
came of it (`status` and `text`, or `error`, the name of what was raised) and after how many `ms`. Only Python's own
modules; whose certificates it trusts is said by NODE_EXTRA_CA_CERTS.
"""

import json
import os
import socket
import socketserver
import ssl
import time
import urllib.error
import urllib.request


class Inhabitant(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            begun = time.monotonic()
            what, *arguments = line.decode().split()
            answer = attempt(what, arguments)
            answer["ms"] = round((time.monotonic() - begun) * 1000)
            self.wfile.write(json.dumps(answer).encode() + b"\n")


def attempt(what: str, arguments: list[str]) -> dict[str, object]:
    try:
        return {"get": get, "connect": connect, "send": send, "resolve": resolve}[what](*arguments)
    except urllib.error.HTTPError as refused:
        return {"status": refused.code, "text": refused.read().decode()}
    except urllib.error.URLError as failed:
        return {"error": type(failed.reason).__name__, "text": str(failed.reason)}
    except OSError as failed:
        return {"error": type(failed).__name__, "text": str(failed)}


def get(url: str, bearer: str) -> dict[str, object]:
    trusted = ssl.create_default_context(cafile=os.environ.get("NODE_EXTRA_CA_CERTS"))
    headers = {"authorization": f"Bearer {bearer}", "notion-version": "2022-06-28"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), context=trusted, timeout=20) as answer:
        return {"status": answer.status, "text": answer.read().decode()}


def connect(address: str, port: str) -> dict[str, object]:
    with socket.create_connection((address, int(port)), timeout=20):
        return {"status": "connected"}


def send(address: str, port: str) -> dict[str, object]:
    """Twice: what the first one met is told to the second."""
    [(family, kind, _, _, place), *_] = socket.getaddrinfo(address, int(port), type=socket.SOCK_DGRAM)
    with socket.socket(family, kind) as datagrams:
        datagrams.connect(place)
        datagrams.send(b"\0")
        datagrams.send(b"\0")
        return {"status": "sent"}


def resolve(name: str) -> dict[str, object]:
    found = socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)
    return {"addresses": sorted({str(place[0]) for *_, place in found})}


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True


if __name__ == "__main__":
    with Server(("127.0.0.1", 3000), Inhabitant) as server:
        server.serve_forever()
