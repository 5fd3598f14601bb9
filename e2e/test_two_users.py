"""Two users of one MCP server that knows nothing of users: each call reaches the API with its own user's token.

The server is the unmodified Notion server, one process for both. Its wires are tapped on both sides, so that everything
it is told can be searched for what it must not know.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from harness import client_program
from harness.leaks import assert_no_secrets
from harness.mcp_http_server import McpHttpServer
from harness.ports import free_ports
from harness.python_client import PythonClient
from harness.sdk_client import SdkClient, StartClient
from harness.sidekey import Addresses, Sidekey, StartSidekey
from harness.simulator import Simulator
from harness.user import User
from harness.wiretap import Wiretap
from servers import shared_notion_server

CALLS = 1_000
AT_A_TIME = 50
# The least time between two calls of one caller, so that all calls together last as long as a few tokens do.
PAUSE_SECONDS = 0.5
REFRESHES_AT_LEAST = 3


@dataclass
class TappedServer:
    """The shared server, and everything that reaches it."""

    server: McpHttpServer
    inbound: Wiretap
    outbound: Wiretap

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.inbound.port}/mcp"

    def everything_it_knows(self) -> bytes:
        """What it was sent, what it was answered, its environment, and what it made of that in its log."""
        environment = json.dumps(self.server.environment).encode()
        return bytes(self.inbound.sent + self.outbound.received) + environment + self.server.output().encode()


@pytest.fixture
def tapped(addresses: Addresses) -> Iterator[TappedServer]:
    # The server refuses requests for another port than its own: so the tap has the same one, on another address.
    [port] = free_ports(1)
    with (
        Wiretap(addresses.egress_port) as outbound,
        Wiretap(port, target_host="127.0.0.2", port=port) as inbound,
        shared_notion_server(outbound.port, port, host="127.0.0.2") as server,
    ):
        yield TappedServer(server, inbound, outbound)


@pytest.fixture
def sidekey(start_notion_front: StartSidekey, simulator: Simulator, tapped: TappedServer) -> Sidekey:
    # Tokens that live for three seconds, at a provider that lets an old one live on while a new one is fetched.
    simulator.configure("notion", access_lifetime_s=3.0, kills_access=False)
    many = f"{10 * CALLS}/1m"
    return start_notion_front(
        tapped.url,
        tables={"limits": {"requests_per_grant": many, "requests_per_subject": many}},
        additions={"notion": {"lifetime": {"access": "3s"}}},
    )


def test_every_call_reaches_the_api_with_the_token_of_its_own_user(
    sidekey: Sidekey, simulator: Simulator, tapped: TappedServer, alice: User, bob: User, start_client: StartClient
) -> None:
    clients = {
        "alice": start_client(PythonClient, sidekey, alice),
        "bob": start_client(client_program.typescript_v1, sidekey, bob),
    }
    for client in clients.values():
        client.connect()
    owners = make_calls(clients)
    record = [call for call in simulator.calls("notion") if call["marker"] in owners]
    wrong = [call for call in record if call["user"] != owners[call["marker"]]]
    assert not wrong, f"{len(wrong)} calls with the token of another user, such as {wrong[0]}"
    refused = [call for call in record if not call["accepted"]]
    assert not refused, f"{len(refused)} calls with a token that no longer works, such as {refused[0]}"
    assert Counter(call["marker"] for call in record) == dict.fromkeys(owners, 1), "not each call exactly once"
    for user in clients:
        generations = {call["generation"] for call in record if call["user"] == user}
        assert len(generations) > REFRESHES_AT_LEAST, f"the calls of {user} saw the tokens {generations}"
    assert {call["user"] for call in simulator.calls("notion")} == set(clients)
    assert_it_knows_no_token(tapped, simulator, clients)


def test_a_session_is_of_no_use_to_another_user(
    sidekey: Sidekey, simulator: Simulator, tapped: TappedServer, alice: User, bob: User, start_client: StartClient
) -> None:
    """The server remembers by session whose token it uses: whoever could name a session would act as its user."""
    tokens = {}
    for user in (alice, bob):
        client = start_client(PythonClient, sidekey, user)
        client.connect()
        tokens[user.name] = client.tokens()["access_token"]
        # From here on nothing but this test talks to the server.
        client.disconnect()
    session = begin_session(sidekey, tokens["alice"])
    assert search(sidekey, tokens["alice"], session, "call-by-alice").status_code == 200
    for method in ("POST", "GET", "DELETE"):
        sent_before = len(tapped.inbound.sent)
        answer = search(sidekey, tokens["bob"], session, "call-by-bob", method)
        assert answer.status_code == 404, f"{method}: {answer.status_code} {answer.text}"
        assert len(tapped.inbound.sent) == sent_before, f"the server was told of the {method}"
    # Nothing ended for the one whose session it is.
    assert search(sidekey, tokens["alice"], session, "call-by-alice-again").status_code == 200
    markers = {call["marker"]: call["user"] for call in simulator.calls("notion") if call["marker"]}
    assert markers == {"call-by-alice": "alice", "call-by-alice-again": "alice"}


def begin_session(sidekey: Sidekey, token: str) -> str:
    parameters = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "end-to-end test", "version": "1"},
    }
    answer = mcp_request(sidekey, token, {}, {"method": "initialize", "params": parameters})
    assert answer.status_code == 200, answer.text
    return answer.headers["mcp-session-id"]


def search(sidekey: Sidekey, token: str, session: str, marker: str, method: str = "POST") -> httpx2.Response:
    """A tool call in a session; or another method on that session, which then says nothing."""
    call = {"method": "tools/call", "params": {"name": "API-post-search", "arguments": {"query": marker}}}
    headers = {"mcp-session-id": session, "mcp-protocol-version": "2025-11-25"}
    return mcp_request(sidekey, token, headers, call if method == "POST" else None, method)


def mcp_request(
    sidekey: Sidekey, token: str, headers: dict[str, str], message: dict[str, Any] | None, method: str = "POST"
) -> httpx2.Response:
    accept = "text/event-stream" if method == "GET" else "application/json, text/event-stream"
    return sidekey.http.request(
        method,
        f"{sidekey.addresses.public_url}/notion/mcp",
        headers={"authorization": f"Bearer {token}", "accept": accept, **headers},
        json={"jsonrpc": "2.0", "id": 1, **message} if message else None,
    )


def make_calls(clients: dict[str, SdkClient]) -> dict[str, str]:
    """Lets both users call the API, interleaved; returns whose call is whose, by what is in it."""
    owners = {f"call-{uuid4()}": user for _ in range(CALLS // 2) for user in clients}
    begun = time.monotonic()

    def caller(number: int) -> None:
        for turn, (marker, user) in enumerate(list(owners.items())[number::AT_A_TIME]):
            time.sleep(max(0.0, begun + turn * PAUSE_SECONDS - time.monotonic()))
            make_call(clients[user], marker, by_path=turn % 2 == 0)

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for done in [pool.submit(caller, number) for number in range(AT_A_TIME)]:
            done.result()
    return owners


def make_call(client: SdkClient, marker: str, by_path: bool) -> None:
    """A tool call that takes the marker to the API, in the path or in the body."""
    if by_path:
        answer = client.call("API-retrieve-a-page", {"page_id": marker})
        assert answer.get("api_path") == f"/v1/pages/{marker}", answer
    else:
        answer = client.call("API-post-search", {"query": marker})
        assert answer.get("object") == "list", answer


def assert_it_knows_no_token(tapped: TappedServer, simulator: Simulator, clients: dict[str, SdkClient]) -> None:
    known = tapped.everything_it_knows()
    # The taps did record what the server saw, in clear.
    assert b"call-" in bytes(tapped.inbound.sent) and b'"object":"list"' in bytes(tapped.outbound.received)
    assert b"sidekey_h_" in bytes(tapped.inbound.sent) and b"sidekey_h_" in bytes(tapped.outbound.sent)
    assert_no_secrets(known, simulator.secrets(), "what the server was told")
    for user, client in clients.items():
        tokens = {client.tokens()[kind] for kind in ("access_token", "refresh_token")}
        assert_no_secrets(known, tokens, f"what the server was told, of the client of {user}:")
