"""The unmodified Notion MCP server calls its API through Sidekey, with a handle where Notion's token would be."""

import json
from collections.abc import Callable

import pytest

from harness.leaks import assert_no_secrets
from harness.sidekey import Sidekey
from harness.simulator import Simulator, hash_of, newest_token
from harness.wiretap import Wiretap
from servers import notion_server

PAGE = {"parent": {"page_id": "1111"}, "properties": {"title": [{"text": {"content": "Größe → 1 Mö"}}]}}


@pytest.fixture
def sidekey(sidekey_at_simulator: Callable[..., Sidekey]) -> Sidekey:
    """Alice has connected."""
    sidekey = sidekey_at_simulator("notion")
    sidekey.connect("notion", "alice")
    return sidekey


def test_its_tools_get_answers_with_the_token_of_the_grant(sidekey: Sidekey, simulator: Simulator) -> None:
    handle = sidekey.issue_handle("notion", "alice")
    [grant] = simulator.grants("notion")
    with notion_server(sidekey.addresses.egress_port, handle) as server:
        assert server.call("API-get-self")["id"] == f"bot-of-{grant['id']}"
        assert server.call("API-get-users")["results"][0]["name"] == "Ada"
        assert len(server.call("API-post-search", {"query": "milk"})["results"]) == 2
        # Whatever the simulator does not know it echoes, with the token as its hash.
        echo = server.call("API-post-page", PAGE)
    token = newest_token(grant)
    assert echo["headers"]["authorization"] == f"sha256:{token['value_sha256']}"
    assert echo["api_path"] == "/v1/pages" and echo["method"] == "POST"
    calls = simulator.accepted_calls("notion")
    assert {(call.grant_id, call.token_id) for call in calls} == {(grant["id"], token["id"])}
    # Sidekey itself may have asked before whose grant it is.
    requests = ["GET /v1/users/me", "GET /v1/users", "POST /v1/search", "POST /v1/pages"]
    assert [call.request for call in calls][-4:] == requests
    assert simulator.counters("notion")["api_calls_rejected"] == 0


def test_request_bodies_and_headers_arrive_as_sent_and_the_handle_does_not(sidekey: Sidekey) -> None:
    handle = sidekey.issue_handle("notion", "alice")
    with notion_server(sidekey.addresses.egress_port, handle) as server:
        echo = server.call("API-post-page", PAGE)
    sent = json.dumps(PAGE, ensure_ascii=False, separators=(",", ":"))
    assert (echo["body_bytes"], echo["body_sha256"]) == (len(sent.encode()), hash_of(sent))
    assert echo["headers"]["user-agent"] == "notion-mcp-server"
    assert echo["headers"]["notion-version"] == "2025-09-03"
    assert handle not in json.dumps(echo) and hash_of(handle) not in json.dumps(echo)


def test_no_secret_of_the_provider_ever_reaches_the_server(sidekey: Sidekey, simulator: Simulator) -> None:
    handle = sidekey.issue_handle("notion", "alice")
    with Wiretap(sidekey.addresses.egress_port) as wire, notion_server(wire.port, handle) as server:
        server.call("API-get-self")
        server.call("API-post-search", {"query": "milk"})
        server.call("API-post-page", PAGE)
        simulator.expire("notion")
        server.call("API-get-self")
    # The wire did see what the server saw: its handle, and the answers, in clear.
    assert f"Bearer {handle}".encode() in wire.sent and b"bot-of-grant" in wire.received
    secrets = simulator.secrets()
    assert_no_secrets(bytes(wire.received), secrets, "what the server received")
    assert_no_secrets("\n".join(server.answers).encode(), secrets, "what its tools answered")
    assert_no_secrets(json.dumps(server.environment).encode(), secrets, "its environment")


def test_each_handle_reaches_the_grant_of_its_own_subject(sidekey: Sidekey, simulator: Simulator) -> None:
    sidekey.connect("notion", "bob")
    grants = simulator.grants("notion")
    for subject, grant in zip(["alice", "bob", "alice"], [grants[0], grants[1], grants[0]], strict=True):
        handle = sidekey.issue_handle("notion", subject)
        with notion_server(sidekey.addresses.egress_port, handle) as server:
            assert server.call("API-get-self")["id"] == f"bot-of-{grant['id']}", subject


def test_without_a_handle_nothing_is_called_at_the_provider(sidekey: Sidekey, simulator: Simulator) -> None:
    calls_before = simulator.counters("notion")["api_calls"]
    with notion_server(sidekey.addresses.egress_port, "placeholder") as server:
        problem = server.call("API-get-self")
    assert (problem["status"], problem["type"]) == (401, "urn:sidekey:error:handle-required"), problem
    assert "sidekey handle issue" in problem["next_step"]
    assert simulator.counters("notion")["api_calls"] == calls_before
