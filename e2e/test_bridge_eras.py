"""A server that speaks both eras of the protocol answers the same behind Sidekey as on its own pipes, in each era.

Server and clients are made with the official Python SDKs. What a client does is written down once, and done at the server
directly and through Sidekey.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import anyio
import httpx2
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from harness import client_program
from harness.python_client import PythonClient
from harness.sdk_client import StartClient
from harness.sidekey import Sidekey, StartSidekey
from harness.toml import Tables
from harness.user import User

SERVER = [sys.executable, str(Path(__file__).parent / "probes/dual_era_server.py")]
FRONT: Tables = {
    "issuer": {"identity": "notion"},
    "servers.eras": {"command": SERVER, "providers": ["notion"], "required": ["notion"]},
    # The packages of these tests are no place that other users can read.
    "servers.eras.children": {"isolation": False},
}
Mode = Literal["auto", "legacy"]
MODES: list[Mode] = ["auto", "legacy"]


@pytest.fixture
def sidekey(sidekey_at_simulator: StartSidekey) -> Sidekey:
    return sidekey_at_simulator("notion", tables=FRONT)


@pytest.fixture
def authorized(sidekey: Sidekey, alice: User, start_client: StartClient) -> Iterator[PythonClient]:
    """A client of alice's, whose tokens others here use too."""
    client = start_client(PythonClient, sidekey, alice, path="/eras/mcp")
    assert isinstance(client, PythonClient)
    client.connect()
    client.disconnect()
    yield client


async def script(client: Client) -> list[Any]:
    """What a client does, and everything that it gets."""
    seen: list[Any] = [client.protocol_version, client.server_info, client.server_capabilities, client.instructions]
    seen.append(await client.list_tools())
    seen.append(await client.call_tool("era", {"name": "größe\n\u2028"}))
    steps: list[Any] = []

    async def step(progress: float, total: float | None, message: str | None) -> None:
        steps.append((progress, total, message))

    seen.append(await client.call_tool("count", {"to": 5}, progress_callback=step))
    seen.append(steps)
    seen.append(await client.call_tool("fail"))
    seen.append(await client.call_tool("repeat", {"text": "x" * 1000, "times": 3000}))
    for arguments in ({"to": "many"}, {}):
        seen.append(await client.call_tool("count", arguments))
    seen.append(await client.list_resource_templates())
    seen.append(await client.read_resource("notes://alice"))
    seen.append(await client.list_prompts())
    seen.append(await client.get_prompt("ask", {"about": "MCP"}))
    for failing in (
        lambda: client.call_tool("unknown"),
        lambda: client.read_resource("other://alice"),
        lambda: client.get_prompt("unknown"),
    ):
        try:
            seen.append(await failing())
        except MCPError as error:
            seen.append(error.error)
    return [entry.model_dump(mode="json", by_alias=True) if hasattr(entry, "model_dump") else entry for entry in seen]


async def directly(mode: Mode) -> list[Any]:
    parameters = StdioServerParameters(command=SERVER[0], args=SERVER[1:])
    async with Client(stdio_client(parameters), mode=mode) as client:
        return await script(client)


async def through_sidekey(authorized: PythonClient, mode: Mode, times: int = 1) -> list[list[Any]]:
    """What several clients of one user get that do it at the same time."""
    results: list[list[Any]] = []

    async def one() -> None:
        async with (
            httpx2.AsyncClient(auth=authorized.oauth, timeout=30, trust_env=False) as http,
            Client(streamable_http_client(authorized.setup.server_url, http_client=http), mode=mode) as client,
        ):
            results.append(await script(client))

    async with anyio.create_task_group() as tasks:
        for _ in range(times):
            tasks.start_soon(one)
    return results


def test_answers_are_those_that_the_server_gives_on_its_own_pipes(authorized: PythonClient, sidekey: Sidekey) -> None:
    seen: dict[Mode, list[list[Any]]] = {}

    async def both() -> None:
        async def one(mode: Mode) -> None:
            seen[mode] = await through_sidekey(authorized, mode, times=2)

        async with anyio.create_task_group() as tasks:
            for mode in MODES:
                tasks.start_soon(one, mode)

    authorized.portal.call(both)
    for mode in MODES:
        expected = authorized.portal.call(directly, mode)
        era = "newer" if mode == "auto" else "older"
        assert f"in the {era} era" in str(expected[5]), "the script does not do what it says"
        assert expected[7] == [(number, 5, f"step {number}") for number in range(1, 6)], "progress was lost on pipes"
        for result in seen[mode]:
            assert result == expected, f"{mode}: {first_difference(result, expected)}"
    # One process for each era, shared by all clients of the user.
    children = sidekey.command("status")["children"]
    assert len(children) == 2 and {child["subject"] for child in children} == {children[0]["subject"]}


def first_difference(result: list[Any], expected: list[Any]) -> Any:
    return next((pair for pair in zip(result, expected, strict=True) if pair[0] != pair[1]), None)


def test_a_call_that_is_given_up_is_cancelled_and_others_go_on(authorized: PythonClient) -> None:
    async def give_up(mode: Mode) -> list[Any]:
        async with (
            httpx2.AsyncClient(auth=authorized.oauth, timeout=30, trust_env=False) as http,
            Client(streamable_http_client(authorized.setup.server_url, http_client=http), mode=mode) as client,
        ):
            with anyio.move_on_after(0.3) as scope:
                await client.call_tool("never")
            assert scope.cancelled_caught
            noticed = await client.call_tool("was_given_up")
            counted = await client.call_tool("count", {"to": 1})
            return [noticed.structured_content, counted.structured_content]

    for mode in MODES:
        assert authorized.portal.call(give_up, mode) == [{"result": True}, {"counted": 1}]


def test_the_python_client_before_version_2_is_served(sidekey: Sidekey, alice: User, start_client: StartClient) -> None:
    with ExitStack() as stack:
        client = start_client(client_program.python_v1, sidekey, alice, path="/eras/mcp")
        client.connect()
        stack.callback(client.disconnect)
        assert {"era", "count", "fail"} <= client.tools()
        assert client.call("count", {"to": 3}) == {"counted": 3}
