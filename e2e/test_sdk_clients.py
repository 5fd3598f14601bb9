"""The official MCP clients find their way from nothing but an address to a tool's answer, and keep it.

Sidekey stands in front of the unmodified Notion server. Each client discovers, introduces itself, lets its user agree
in a browser, exchanges its code and calls tools with what its own SDK does; nothing here knows an endpoint.
"""

import time
from collections.abc import Callable

import httpx2
import pytest

from fronts import DOCUMENT, STATIC
from harness import client_program
from harness.mcp_http_server import McpHttpServer
from harness.python_client import PythonClient
from harness.sdk_client import Identity, SdkClient, Setup, StartClient
from harness.sidekey import Sidekey, StartSidekey
from harness.simulator import Simulator
from harness.user import User

Make = Callable[[Setup], SdkClient]

every_client = pytest.mark.parametrize(
    "make",
    [
        pytest.param(PythonClient, id="python-2"),
        pytest.param(client_program.python_v1, id="python-1"),
        pytest.param(client_program.typescript_v2, id="typescript-2"),
        pytest.param(client_program.typescript_v1, id="typescript-1"),
    ],
)
every_identity = pytest.mark.parametrize(
    "identity",
    [
        pytest.param(Identity(name="Self-registered client of this test"), id="registers itself"),
        pytest.param(DOCUMENT, id="has a document"),
        pytest.param(STATIC, id="is known"),
    ],
)


@pytest.fixture
def sidekey(start_notion_front: StartSidekey, shared_notion: McpHttpServer) -> Sidekey:
    return start_notion_front(shared_notion.url)


@every_client
@every_identity
def test_a_client_gets_answers_with_the_token_of_its_user(
    make: Make, identity: Identity, sidekey: Sidekey, simulator: Simulator, alice: User, start_client: StartClient
) -> None:
    client = start_client(make, sidekey, alice, identity)
    client.connect()
    assert {"API-get-self", "API-post-search"} <= client.tools()
    [grant] = simulator.grants("notion")
    assert client.call("API-get-self")["id"] == f"bot-of-{grant['id']}"
    assert {call["user"] for call in simulator.calls("notion") if call["accepted"]} == {"alice"}
    # One visit was enough, and it said who sent the code (RFC 9207).
    [callback] = alice.callbacks
    assert httpx2.URL(callback).params["iss"] == sidekey.addresses.public_url
    if identity.client_id or identity.document_url:
        assert client.registration()["client_id"] == (identity.client_id or identity.document_url)
    assert client.tokens()["token_type"] == "Bearer" and client.tokens()["scope"].split()[0] == "mcp"


@every_client
def test_a_session_and_its_tokens_outlive_a_restart_of_sidekey(
    make: Make, sidekey: Sidekey, alice: User, start_client: StartClient
) -> None:
    client = start_client(make, sidekey, alice)
    client.connect()
    answer, tokens, registration = client.call("API-get-self"), client.tokens(), client.registration()
    sidekey.restart()
    # The MCP server took the handle when the session began, and has it still.
    assert client.call("API-get-self") == answer
    client.disconnect()
    client.connect()
    assert client.call("API-get-self") == answer
    assert (client.tokens(), client.registration()) == (tokens, registration)
    assert len(alice.callbacks) == 1, "the user was asked again"


@every_client
def test_a_client_refreshes_without_its_user(
    make: Make, sidekey: Sidekey, alice: User, start_client: StartClient
) -> None:
    client = start_client(make, sidekey, alice)
    client.connect()
    answer, seen = client.call("API-get-self"), [client.tokens()]
    for _ in range(3):
        client.expire()
        # Within the session that began with another token.
        assert client.call("API-get-self") == answer
        seen.append(client.tokens())
    sidekey.restart()
    client.expire()
    assert client.call("API-get-self") == answer
    seen.append(client.tokens())
    for kind in ("access_token", "refresh_token"):
        assert len({tokens[kind] for tokens in seen}) == len(seen), f"the same {kind} came again"
    assert len(alice.callbacks) == 1, "the user was asked again"
    sidekey.issued |= {tokens[kind] for tokens in seen for kind in ("access_token", "refresh_token")}


@every_client
def test_a_client_notices_that_its_access_token_has_expired(
    make: Make, start_notion_front: StartSidekey, shared_notion: McpHttpServer, alice: User, start_client: StartClient
) -> None:
    sidekey = start_notion_front(shared_notion.url, tables={"issuer": {"access_token_lifetime": "2s"}})
    client = start_client(make, sidekey, alice)
    client.connect()
    answer, before = client.call("API-get-self"), client.tokens()
    time.sleep(2.5)
    assert client.call("API-get-self") == answer
    assert client.tokens()["access_token"] != before["access_token"]
    assert len(alice.callbacks) == 1, "the user was asked again"


@every_client
def test_two_clients_of_one_user_have_tokens_of_their_own(
    make: Make, sidekey: Sidekey, simulator: Simulator, alice: User, start_client: StartClient
) -> None:
    clients = [start_client(make, sidekey, alice, Identity(name=name)) for name in ("One", "Another")]
    for client in clients:
        client.connect()
    # The second found the user's connection.
    assert len(simulator.grants("notion")) == 1
    first, second = [client.tokens() for client in clients]
    assert first["access_token"] != second["access_token"] and first["refresh_token"] != second["refresh_token"]
    assert clients[0].call("API-get-self") == clients[1].call("API-get-self")
