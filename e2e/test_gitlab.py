"""The unmodified GitLab MCP server calls its API through Sidekey, with a handle where GitLab's token would be."""

import json
from collections.abc import Callable, Iterator

import pytest

import gitlab_answers
from harness.leaks import assert_no_secrets
from harness.mcp_server import McpServer
from harness.sidekey import Sidekey
from harness.simulator import Simulator, newest_token
from harness.wiretap import Wiretap
from servers import gitlab_server

PROJECT = "group/sub group/project"
# A slash inside a segment is %2F, a space %20; whoever decodes one of them on the way asks for another project.
PROJECT_PATH = "/api/v4/projects/group%2Fsub%20group%2Fproject"


@pytest.fixture
def sidekey(sidekey_at_simulator: Callable[..., Sidekey]) -> Sidekey:
    """Alice has connected."""
    sidekey = sidekey_at_simulator("gitlab")
    sidekey.connect("gitlab", "alice")
    return sidekey


@pytest.fixture
def server(sidekey: Sidekey) -> Iterator[McpServer]:
    with gitlab_server(sidekey.addresses.egress_port, sidekey.issue_handle("gitlab", "alice")) as server:
        yield server


def test_its_tools_get_answers_with_the_token_of_the_grant(server: McpServer, simulator: Simulator) -> None:
    [grant] = simulator.grants("gitlab")
    simulator.add_to_answer("gitlab", gitlab_answers.PROJECT)
    assert server.call("create_repository", {"name": "project"})["path_with_namespace"] == "group/project"
    simulator.add_to_answer("gitlab", gitlab_answers.ISSUE)
    issue = server.call("create_issue", {"project_id": "11", "title": "It is broken", "description": "All of it"})
    assert issue["title"] == "It is broken"
    simulator.add_to_answer("gitlab", gitlab_answers.BRANCH)
    assert server.call("create_branch", {"project_id": "11", "branch": "mend", "ref": "main"})["name"] == "mend"
    calls = simulator.accepted_calls("gitlab")
    requests = [
        "POST /api/v4/projects",
        "POST /api/v4/projects/11/issues",
        "POST /api/v4/projects/11/repository/branches",
    ]
    assert [call.request for call in calls] == requests
    assert {(call.grant_id, call.token_id) for call in calls} == {(grant["id"], newest_token(grant)["id"])}
    assert simulator.counters("gitlab")["api_calls_rejected"] == 0


def test_encoded_project_and_file_paths_arrive_as_sent(server: McpServer, simulator: Simulator) -> None:
    file = {"project_id": PROJECT, "file_path": "docs/read me.md"}
    simulator.add_to_answer("gitlab", gitlab_answers.FILE)
    assert server.call("get_file_contents", {**file, "ref": "feature/x"})["content"] == "Hello"
    simulator.add_to_answer("gitlab", gitlab_answers.FILE)
    simulator.add_to_answer("gitlab", gitlab_answers.WRITTEN_FILE, nth=2)
    written = server.call(
        "create_or_update_file", {**file, "content": "Hi", "commit_message": "Shorten", "branch": "main"}
    )
    assert written["file_path"] == "docs/read me.md"
    simulator.add_to_answer("gitlab", gitlab_answers.MERGE_REQUEST)
    branches = {"source_branch": "mend", "target_branch": "main"}
    request = server.call("create_merge_request", {"project_id": PROJECT, "title": "Mend it", **branches})
    assert request["source_branch"] == "mend"
    simulator.add_to_answer("gitlab", gitlab_answers.COMMIT)
    files = [{"file_path": "a/b.txt", "content": "b"}]
    commit = {"project_id": PROJECT, "branch": "mend", "files": files, "commit_message": "Mend it"}
    assert server.call("push_files", commit)["title"] == "Mend it"
    file_path = f"{PROJECT_PATH}/repository/files/docs%2Fread%20me.md"
    assert [call.request for call in simulator.accepted_calls("gitlab")] == [
        f"GET {file_path}",
        f"GET {file_path}",
        f"PUT {file_path}",
        f"POST {PROJECT_PATH}/merge_requests",
        f"POST {PROJECT_PATH}/repository/commits",
    ]


def test_no_secret_of_the_provider_ever_reaches_the_server(sidekey: Sidekey, simulator: Simulator) -> None:
    handle = sidekey.issue_handle("gitlab", "alice")
    simulator.add_to_answer("gitlab", gitlab_answers.BRANCH)
    with Wiretap(sidekey.addresses.egress_port) as wire, gitlab_server(wire.port, handle) as server:
        server.call("create_branch", {"project_id": PROJECT, "branch": "mend", "ref": "main"})
    assert f"Bearer {handle}".encode() in wire.sent and b"200 OK" in wire.received
    secrets = simulator.secrets()
    assert_no_secrets(bytes(wire.received), secrets, "what the server received")
    assert_no_secrets("\n".join(server.answers).encode(), secrets, "what its tools answered")
    assert_no_secrets(json.dumps(server.environment).encode(), secrets, "its environment")
