"""Published MCP servers run unmodified under `sidekey run`, driven by the official client.

Their hosts are built in, so they arrive by interception; the entries of their providers and their recipes are the bundled
ones. All that each of them got to see is searched for what it must not have.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.confined import ConfinedServer
from harness.impostor import Impostor
from harness.probe import CURL, FETCH, GO, JAVA, output
from harness.sidekey import Sidekey, StartSidekey
from harness.simulator import Simulator, newest_token
from harness.stage import Stage

SERVERS = "node_modules/@modelcontextprotocol"

# As the simulator has it.
REALM = "9341453172058817"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="stage-") as directory:
        yield Stage(Path(directory))


def test_the_github_server(
    sidekey_at_companies: StartSidekey, simulator: Simulator, stage: Stage, tmp_path: Path
) -> None:
    sidekey = sidekey_at_companies("github")
    program = ["node", stage.packages / SERVERS / "server-github/dist/index.js"]
    with ConfinedServer(sidekey, stage, tmp_path / "log", "--recipe", "github", command=program) as server:
        assert "get_issue" in server.tools()
        # Whatever the simulator does not know it echoes, with the token as its hash.
        echo = server.call("get_issue", {"owner": "ada", "repo": "engine", "issue_number": 7})
        assert_nothing_leaked(server, sidekey, simulator)
    [grant] = simulator.grants("github")
    token = newest_token(grant)
    assert echo["headers"]["authorization"] == f"sha256:{token['value_sha256']}"
    call = simulator.accepted_calls("github")[-1]
    assert call.request == "GET /repos/ada/engine/issues/7"
    assert (call.grant_id, call.token_id) == (grant["id"], token["id"])
    assert simulator.calls("github")[-1]["user"] == "alice"


def test_the_slack_server(
    sidekey_at_companies: StartSidekey, simulator: Simulator, stage: Stage, tmp_path: Path
) -> None:
    sidekey = sidekey_at_companies("slack")
    program = ["node", stage.packages / SERVERS / "server-slack/dist/index.js"]
    with ConfinedServer(sidekey, stage, tmp_path / "log", "--recipe", "slack", command=program) as server:
        channels = server.call("slack_list_channels")["channels"]
        assert [channel["name"] for channel in channels] == ["general", "random"]
        posted = server.call("slack_post_message", {"channel_id": channels[0]["id"], "text": "Größe"})
        assert posted["ok"] and posted["message"]["text"] == "Größe", posted
        assert server.call("slack_get_users")["members"][0]["name"] == "alice"
        assert_nothing_leaked(server, sidekey, simulator)
    [grant] = simulator.grants("slack")
    calls = [call for call in simulator.accepted_calls("slack") if call.grant_id == grant["id"]]
    assert [call.request.split()[0] for call in calls][-3:] == ["GET", "POST", "GET"]


def test_quickbooks_through_its_own_libraries(
    sidekey_at_companies: StartSidekey, simulator: Simulator, stage: Stage, tmp_path: Path
) -> None:
    """They refresh by themselves before each call, and Intuit never hears of it."""
    sidekey = sidekey_at_companies("quickbooks")
    program = ["node", stage.packages / "quickbooks.mjs"]
    with ConfinedServer(sidekey, stage, tmp_path / "log", "--recipe", "quickbooks", command=program) as server:
        assert server.call("get_company")["Id"] == REALM
        # A placeholder for the company.
        assert server.call("get_company", {"realm": "0"})["Id"] == REALM
        customers = server.call("search_customers")["QueryResponse"]["Customer"]
        assert [customer["Id"] for customer in customers] == ["1", "2"]
        # The file in which it keeps its tokens is searched too.
        assert "files" in server.where([server.handle()])[server.handle()]
        assert_nothing_leaked(server, sidekey, simulator)
    [grant] = simulator.grants("quickbooks")
    assert simulator.counters("quickbooks")["refresh_attempts"] == 0
    calls = simulator.accepted_calls("quickbooks")[-3:]
    assert {(call.grant_id, call.token_id) for call in calls} == {(grant["id"], newest_token(grant)["id"])}
    assert all(call.request.startswith(f"GET /v3/company/{REALM}/") for call in calls), calls


def test_libraries_that_companies_publish(
    sidekey_at_companies: StartSidekey, simulator: Simulator, stage: Stage, tmp_path: Path
) -> None:
    """Two grants, two companies, and a program that has no token for either."""
    sidekey = sidekey_at_companies("spotify", "todoist")
    program = ["node", stage.packages / "libraries.mjs"]
    with ConfinedServer(sidekey, stage, tmp_path / "log", command=program) as server:
        assert server.call("spotify_profile")["display_name"] == "alice"
        assert server.call("spotify_rename_playlist", {"playlist": "37i9dQ", "name": "Größe"}) == "renamed"
        simulator.expire("spotify")
        assert server.call("spotify_profile")["id"] == "alice", "another token was got meanwhile"
        assert server.call("todoist_projects") == {"results": [], "nextCursor": None}
        assert server.call("todoist_close_task", {"task": "6X7rM8997g3RQmvh"}) is True
        assert_nothing_leaked(server, sidekey, simulator)
    requests = {
        "spotify": ["GET /v1/me", "PUT /v1/playlists/37i9dQ", "GET /v1/me"],
        "todoist": ["GET /api/v1/projects", "POST /api/v1/tasks/6X7rM8997g3RQmvh/close"],
    }
    for company, expected in requests.items():
        calls = simulator.accepted_calls(company)[-len(expected) :]
        assert [call.request for call in calls] == expected
        [grant] = simulator.grants(company)
        assert calls[-1].token_id == newest_token(grant)["id"]
        assert {call["user"] for call in simulator.calls(company)[-len(expected) :]} == {"alice"}


def test_npx_installs_a_server_and_it_works(
    sidekey_at_companies: StartSidekey, simulator: Simulator, stage: Stage, tmp_path: Path
) -> None:
    """From the real registry, through a tunnel, with nothing in its cache; then as any other."""
    sidekey = sidekey_at_companies("github")
    cache = stage.writable("npm-cache")
    variables = {"npm_config_cache": str(cache)}
    with ConfinedServer(sidekey, stage, tmp_path / "log", "--recipe", "github", variables=variables) as server:
        echo = server.call("get_issue", {"owner": "ada", "repo": "engine", "issue_number": 7})
        assert_nothing_leaked(server, sidekey, simulator)
    [grant] = simulator.grants("github")
    assert echo["headers"]["authorization"] == f"sha256:{newest_token(grant)['value_sha256']}"
    assert (cache / "_cacache").is_dir() and list((cache / "_npx").iterdir())


LANGUAGES = {"curl": CURL, "fetch": FETCH, "go": GO, "java": JAVA}


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_program_in_any_language(
    name: str, sidekey_at_companies: StartSidekey, simulator: Simulator, stage: Stage
) -> None:
    """As a user of its own it can read what its variables name. `test_languages.py` tries more with what is printed."""
    sidekey = sidekey_at_companies("github")
    takes_token = ["sh", "-c", 'TOKEN=$GITHUB_PERSONAL_ACCESS_TOKEN exec "$@"', "sh"]
    starter = sidekey.run_command("--subject", "alice", "--recipe", "github", command=takes_token)
    probe = LANGUAGES[name].under(starter, stage.open)
    [answer] = probe.ask({**sidekey.environment, **stage.environment}, "https://api.github.com/user")
    assert (answer.status, answer.json()["login"]) == (200, "alice"), answer
    assert simulator.calls("github")[-1]["user"] == "alice"


def test_what_the_caller_trusts_is_trusted_further(
    sidekey_at_companies: StartSidekey, stage: Stage, tmp_path: Path
) -> None:
    """Such as the authority of a company's own proxy, which stands between npm and its registry."""
    sidekey = sidekey_at_companies("github")
    certificate = tmp_path / "company.pem"
    with Impostor("localhost") as company:
        certificate.write_text(company.certificate)
        environment = {**sidekey.environment, **stage.environment, "NODE_EXTRA_CA_CERTS": str(certificate)}
        url = f"https://localhost:{company.server_address[1]}/"
        program = ["node", "-e", f"fetch('{url}').then(answer => console.log(answer.status))"]
        command = sidekey.run_command("--subject", "alice", command=program)
        assert output(command, environment) == "200\n"


def assert_nothing_leaked(server: ConfinedServer, sidekey: Sidekey, simulator: Simulator) -> None:
    """It holds its handle, as is seen where it is searched; and neither a secret of the provider's nor Sidekey's key."""
    key = (sidekey.directory / "sidekey.key").read_text().strip()
    secrets = {*simulator.secrets(), key}
    handle = server.handle()
    sidekey.issued.add(handle)
    found = server.where(secrets | {handle})
    seen = {"environment", "memory"} if os.geteuid() == 0 else {"environment"}
    assert seen <= found.pop(handle), "the search does not find what is there"
    places = {place for where in found.values() for place in where}
    assert not places, f"secrets are in {places}"
