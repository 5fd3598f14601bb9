"""Published MCP servers that speak stdio, behind Sidekey: each user gets a process, and each call the user's own token.

Nothing of theirs is changed: one comes from npm, the other from PyPI, both by their bundled recipes. The hosts and the entry
of GitHub are the real ones, with the simulator behind them.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from harness import client_program
from harness.client_program import E2E
from harness.confined import command_line, environment_of
from harness.leaks import assert_no_secrets
from harness.python_client import PythonClient
from harness.sdk_client import SdkClient, StartClient
from harness.sidekey import Sidekey, StartSidekey, handle_in
from harness.simulator import Simulator
from harness.stage import Stage, is_open
from harness.toml import Tables
from harness.user import User

CALLS = 1_000
AT_A_TIME = 12

# A tool of each server that takes what names the call to the API, in its path.
TOOLS = {
    "npm": ("get_issue", {"repo": "engine", "issue_number": 7}),
    "pypi": ("list_issues_tool", {"repo": "engine"}),
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="stage-") as directory:
        yield Stage(Path(directory))


@pytest.fixture
def sidekey(sidekey_at_companies: StartSidekey, stage: Stage) -> Sidekey:
    return sidekey_at_companies("github", front=servers(stage))


def servers(stage: Stage) -> Tables:
    """Both servers. The recipes' own commands install them first, which is left out here."""
    github = stage.packages / "node_modules/@modelcontextprotocol/server-github/dist/index.js"
    packages = stage.open(E2E / ".python-servers")
    common = {"providers": ["github"], "required": ["github"]}
    many = f"{10 * CALLS}/1m"
    return {
        "issuer": {"identity": "github"},
        "servers.npm": {
            **common,
            "recipe": "github",
            "command": ["node", str(github)],
            "environment": stage.environment,
        },
        "servers.pypi": {
            **common,
            "recipe": "github-crunchtools",
            "command": [open_python(), "-m", "mcp_github_crunchtools"],
            "environment": {"PYTHONPATH": str(packages)},
        },
        "limits": {"requests_per_grant": many, "requests_per_subject": many},
    }


def open_python() -> str:
    """The Python that `run` has installed the packages for, which every user can start."""
    system = Path("/usr/bin/python3")
    python = system if system.exists() else Path(sys.executable).resolve()
    assert is_open(python), f"{python} cannot be started by other users"
    return str(python)


@pytest.fixture
def users(simulator: Simulator) -> Iterator[dict[str, User]]:
    names = ["alice", "bob"]
    everybody = {name: User(name, simulator.url, simulator.person(name)) for name in names}
    yield everybody
    for user in everybody.values():
        user.browser.http.close()


def test_every_call_reaches_the_api_with_the_token_of_its_own_user(
    sidekey: Sidekey, simulator: Simulator, users: dict[str, User], start_client: StartClient
) -> None:
    """Clients of both eras of the protocol, at the same time, at servers of both kinds."""
    makers = {"alice": PythonClient, "bob": client_program.typescript_v1}
    clients = {
        (name, server): start_client(make, sidekey, users[name], path=f"/{server}/mcp")
        for name, make in makers.items()
        for server in TOOLS
    }
    with ThreadPoolExecutor(len(clients)) as pool:
        for connected in [pool.submit(client.connect) for client in clients.values()]:
            connected.result()
    for (_, server), client in clients.items():
        assert TOOLS[server][0] in client.tools()
    owners = make_calls(clients)
    record = [call for call in simulator.calls("github") if call["marker"] in owners]
    wrong = [call for call in record if call["user"] != owners[call["marker"]]]
    assert not wrong, f"{len(wrong)} calls with the token of another user, such as {wrong[0]}"
    refused = [call for call in record if not call["accepted"]]
    assert not refused, f"{len(refused)} calls were refused, such as {refused[0]}"
    assert Counter(call["marker"] for call in record) == dict.fromkeys(owners, 1), "not each call exactly once"
    assert_processes_know_their_own_alone(sidekey, simulator)


def make_calls(clients: dict[tuple[str, str], SdkClient]) -> dict[str, str]:
    """All clients call, interleaved; returns whose call is whose, by what is in it."""
    keys = [key for _ in range(CALLS // len(clients)) for key in clients]
    calls = {f"call-{uuid4()}": key for key in keys}

    def make_call(marker: str, key: tuple[str, str]) -> None:
        tool, arguments = TOOLS[key[1]]
        clients[key].call(tool, {"owner": marker, **arguments})

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for done in [pool.submit(make_call, marker, key) for marker, key in calls.items()]:
            done.result()
    return {marker: user for marker, (user, _) in calls.items()}


def assert_processes_know_their_own_alone(sidekey: Sidekey, simulator: Simulator) -> None:
    """Each process is of one user, and holds its own handle, nobody else's, and no token.

    The server from PyPI speaks both eras: it may have two processes for one user.
    """
    children = sidekey.command("status")["children"]
    assert len({child["subject"] for child in children}) == len({child["server"] for child in children}) == 2
    assert len({(child["subject"], child["server"]) for child in children}) == 4
    assert {child["state"] for child in children} == {"running"}
    handles = {}
    programs = [process for process in processes() if is_program(process)]
    for child in children:
        [process] = [process for process in programs if descends(process, child["pid"])]
        environment = environment_of(process)
        handles[child["id"]] = handle_in(environment)
        everything = "\0".join(f"{name}={value}" for name, value in environment.items()).encode()
        assert_no_secrets(everything, simulator.secrets(), f"the environment of {child}")
        others = {other["subject"] for other in children} - {child["subject"]}
        assert not any(other.encode() in everything + command_line(process) for other in others)
        assert "GITHUB_CLIENT_SECRET" not in environment and "RUST_BACKTRACE" not in environment
    assert len(set(handles.values())) == len(children), "each has a handle of its own"
    sidekey.issued |= set(handles.values())


def processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def is_program(process: int) -> bool:
    """Whether it is a program that Sidekey has started, and not what keeps one apart."""
    try:
        return b"run-confined" not in command_line(process) and "HTTPS_PROXY" in environment_of(process)
    except OSError:
        return False  # gone meanwhile, or nobody else may look


def descends(process: int, child: int) -> bool:
    """Whether it is the child's process, or, in namespaces, one that this has started."""
    try:
        while process not in (0, 1, child):
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return False  # gone meanwhile
    return process == child


def test_a_server_ends_with_sidekey(
    sidekey: Sidekey, users: dict[str, User], start_client: StartClient
) -> None:
    """Nothing of it is left: no process, no directory."""
    client = start_client(PythonClient, sidekey, users["alice"], path="/npm/mcp")
    client.connect()
    [child] = sidekey.command("status")["children"]
    [process] = [process for process in processes() if is_program(process) and descends(process, child["pid"])]
    home = Path(environment_of(process)["HOME"])
    assert home.is_dir()
    sidekey.issued.add(handle_in(environment_of(process)))
    client.disconnect()
    assert sidekey.stop() == 0, sidekey.program.output()
    assert not Path(f"/proc/{process}").exists() and not home.exists()
    sidekey.start()
