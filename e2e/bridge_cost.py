"""What the bridge adds to a call of a server that speaks stdio, and what one idle child costs Sidekey itself.

The same calls, one after the other: on the server's own pipes, and over HTTP through Sidekey, in both eras. Then many users
with one idle child each. See docs/benchmarks.md; `make bridge` starts it.
"""

import argparse
import http.client
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import ExitStack, closing
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2

from harness.program import Program
from harness.sidekey import Addresses, Registration, Sidekey
from harness.simulator import Hosts, Simulator
from harness.user import REDIRECT_URI, User

SERVER = [sys.executable, "-S", "-E", str(Path(__file__).parent / "probes/echo_server.py")]
VERIFIER = "v" * 43
MODERN = "2026-07-28"
CALL = {"name": "echo", "arguments": {"text": "y" * 200}}
ROUNDS = 5
# Children before those that are measured: what is set up once is no child's.
WARM_UP = 20


class Pipes:
    """The server, and nothing between."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(SERVER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}})

    def ask(self, method: str, params: dict[str, Any]) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}) + "\n")
        assert "result" in json.loads(self.process.stdout.readline())

    def call(self) -> None:
        self.ask("tools/call", CALL)

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Bridged:
    """One client on one connection that is kept."""

    def __init__(self, port: int, token: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }

    def ask(self, method: str, params: dict[str, Any], more: dict[str, str]) -> http.client.HTTPResponse:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        self.connection.request("POST", "/echo/mcp", body, self.headers | more)
        response = self.connection.getresponse()
        answer = json.loads(response.read())
        assert "result" in answer, answer
        return response

    def begin(self) -> None:
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}}
        self.session = self.ask("initialize", params, {}).headers["Mcp-Session-Id"]

    def older(self) -> None:
        self.ask("tools/call", CALL, {"Mcp-Session-Id": self.session})

    def newer(self) -> None:
        prefix = "io.modelcontextprotocol"
        meta = {f"{prefix}/protocolVersion": MODERN, f"{prefix}/clientCapabilities": {}}
        headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "echo"}
        self.ask("tools/call", CALL | {"_meta": meta}, headers)


def token(sidekey: Sidekey, simulator: Simulator, name: str) -> str:
    """What a client gets that a user authorizes."""
    own = sidekey.addresses.public_url
    with httpx2.Client(trust_env=False) as client, User(name, simulator.url) as user:
        about = {"client_name": "Cost", "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none"}
        registered = client.post(f"{own}/register", json=about).raise_for_status().json()
        challenge = urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
        common = {"client_id": registered["client_id"], "redirect_uri": REDIRECT_URI, "resource": f"{own}/echo/mcp"}
        asked = common | {"response_type": "code", "code_challenge": challenge, "code_challenge_method": "S256"}
        back = httpx2.URL(user.visit(f"{own}/authorize?{urlencode(asked)}"))
        form = common | {"grant_type": "authorization_code", "code": back.params["code"], "code_verifier": VERIFIER}
        return str(client.post(f"{own}/token", data=form).raise_for_status().json()["access_token"])


def per_call(call: Callable[[], None], calls: int) -> float:
    """Microseconds."""
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) / calls * 1e6


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def own_memory(pid: int) -> int:
    """Bytes that are this process's alone, without the program itself."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def calls_beside_pipes(sidekey: Sidekey, simulator: Simulator, calls: int) -> None:
    client = Bridged(sidekey.addresses.public_port, token(sidekey, simulator, "caller"))
    client.begin()
    pid = sidekey.program.process.pid
    with closing(Pipes()) as pipes:
        ways: dict[str, Callable[[], None]] = {
            "the server's own pipes": pipes.call,
            "bridge, with a session": client.older,
            "bridge, 2026-07-28": client.newer,
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        cpu: dict[str, list[float]] = {name: [] for name in ways}
        for call in ways.values():
            per_call(call, calls // 10)
        for number in range(ROUNDS):
            for name, call in list(ways.items())[:: -1 if number % 2 else 1]:
                before = cpu_seconds(pid)
                times[name].append(per_call(call, calls))
                cpu[name].append((cpu_seconds(pid) - before) / calls * 1e6)
    print("| way | us per call | of it more than on pipes | CPU of Sidekey, us |\n|---|---:|---:|---:|")
    bare = statistics.median(times["the server's own pipes"])
    for name in ways:
        took = statistics.median(times[name])
        print(f"| {name} | {took:.0f} | {took - bare:.0f} | {statistics.median(cpu[name]):.0f} |")


def idle_children(sidekey: Sidekey, simulator: Simulator, count: int) -> None:
    clients = []
    for number in range(WARM_UP + count):
        clients.append(Bridged(sidekey.addresses.public_port, token(sidekey, simulator, f"user-{number}")))
    pid = sidekey.program.process.pid

    def begin(clients: list[Bridged]) -> int:
        for client in clients:
            client.begin()
            client.connection.close()
        time.sleep(2)
        return own_memory(pid)

    before, after = begin(clients[:WARM_UP]), begin(clients[WARM_UP:])
    assert len(sidekey.command("status")["children"]) == 1 + WARM_UP + count
    print(f"\nmemory of Sidekey's own for each of {count} idle children: {(after - before) / count / 1024:.1f} KiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000, help="in each of the rounds (default 2000)")
    parser.add_argument("--children", type=int, default=50, help="how many are idle (default 50)")
    arguments = parser.parse_args()
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} x {found[1] if found else platform.machine()}, {ROUNDS} rounds\n")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bridge-")))
        home = directory / "sidekey"
        home.mkdir(mode=0o700)
        command = [os.environ["SIMULATOR_BIN"], "--hosts-listen", "127.0.0.1:0", "--hosts-ca", str(directory / "ca.pem")]
        program = Program(command, directory / "simulator.log", os.environ)
        stack.callback(program.stop)
        announced = program.announced()
        hosts = Hosts(announced["hosts"]["address"], directory / "ca.pem", announced["hosts"]["names"])
        simulator = stack.enter_context(closing(Simulator(announced["url"], hosts)))
        registration = Registration(
            provider="notion",
            client_id=simulator.client_id("notion"),
            client_secret=simulator.client_secret("notion"),
            place="@SIMULATOR@",
            url=simulator.url,
        )
        many = "10000000/1m"
        tables = {
            "issuer": {"identity": "notion"},
            "servers.echo": {"command": SERVER, "providers": ["notion"], "required": ["notion"]},
            "servers.echo.children": {"isolation": False, "max": arguments.children + WARM_UP + 1},
            "limits": dict.fromkeys(["requests_per_grant", "requests_per_subject", "registrations_per_address"], many),
            "logging": {"level": "info"},
        }
        sidekey = stack.enter_context(closing(Sidekey(home, Addresses.free(), [registration], tables=tables)))
        sidekey.start()
        stack.callback(sidekey.stop)
        calls_beside_pipes(sidekey, simulator, arguments.calls)
        idle_children(sidekey, simulator, arguments.children)


if __name__ == "__main__":
    main()
