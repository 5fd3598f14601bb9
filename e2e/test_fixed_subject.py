"""The single-tenant sidecar: Sidekey is told whose connections to use, and the MCP servers hold any text as a token."""

from collections.abc import Callable

import pytest

import gitlab_answers
from harness.sidekey import Sidekey
from harness.simulator import Simulator
from servers import gitlab_server, notion_server

PLACEHOLDER = "placeholder"


@pytest.fixture
def sidekey(sidekey_at_simulator: Callable[..., Sidekey]) -> Sidekey:
    """org-42 has connected both providers, and callers without a handle act as org-42."""
    sidekey = sidekey_at_simulator("notion", "gitlab", fixed_subject="org-42")
    sidekey.connect("notion", "org-42")
    sidekey.connect("gitlab", "org-42")
    return sidekey


def test_the_notion_server_works_with_a_placeholder(sidekey: Sidekey, simulator: Simulator) -> None:
    [grant] = simulator.grants("notion")
    with notion_server(sidekey.addresses.egress_port, PLACEHOLDER) as server:
        assert server.call("API-get-self")["id"] == f"bot-of-{grant['id']}"
    assert {call.grant_id for call in simulator.accepted_calls("notion")} == {grant["id"]}
    assert simulator.counters("notion")["api_calls_rejected"] == 0


def test_the_gitlab_server_works_with_a_placeholder(sidekey: Sidekey, simulator: Simulator) -> None:
    [grant] = simulator.grants("gitlab")
    simulator.add_to_answer("gitlab", gitlab_answers.BRANCH)
    with gitlab_server(sidekey.addresses.egress_port, PLACEHOLDER) as server:
        branch = server.call("create_branch", {"project_id": "group/project", "branch": "mend", "ref": "main"})
    assert branch["name"] == "mend"
    [call] = simulator.accepted_calls("gitlab")
    assert call.request == "POST /api/v4/projects/group%2Fproject/repository/branches"
    assert call.grant_id == grant["id"]


def test_a_made_up_handle_does_not_fall_through_to_the_fixed_subject(sidekey: Sidekey, simulator: Simulator) -> None:
    calls_before = simulator.counters("notion")["api_calls"]
    with notion_server(sidekey.addresses.egress_port, f"sidekey_h_{'A' * 43}") as server:
        problem = server.call("API-get-self")
    assert (problem["status"], problem["type"]) == (401, "urn:sidekey:error:unknown-handle"), problem
    assert simulator.counters("notion")["api_calls"] == calls_before
