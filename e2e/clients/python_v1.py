"""The official Python client before version 2 as a small program: told what to do by lines of JSON.

The one argument is a JSON object; see harness/client_program.py for it and for the lines.
"""

import json
import sys
import time
import traceback
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx
from anyio.streams.memory import MemoryObjectReceiveStream
from mcp import ClientSession
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

options = json.loads(sys.argv[1])


class Memory:
    """What an application keeps for the SDK."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.registration: OAuthClientInformationFull | None = None
        if options["client_id"]:
            self.registration = OAuthClientInformationFull(
                client_id=options["client_id"],
                client_secret=options["client_secret"],
                token_endpoint_auth_method="client_secret_basic" if options["client_secret"] else "none",
                redirect_uris=[AnyUrl(options["redirect_uri"])],
            )

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.registration

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.registration = client_info


class Program:
    def __init__(self, callbacks: MemoryObjectReceiveStream[str]) -> None:
        self.callbacks = callbacks
        self.memory = Memory()
        self.oauth = OAuthClientProvider(
            server_url=options["server_url"],
            client_metadata=OAuthClientMetadata(
                client_name=options["client_name"], redirect_uris=[AnyUrl(options["redirect_uri"])]
            ),
            storage=self.memory,
            redirect_handler=self.visit,
            callback_handler=self.callback,
            client_metadata_url=options["document_url"],
        )
        # Entered and left by one task, as the SDK's cancel scopes must be.
        self.leave = anyio.Event()
        self.left = anyio.Event()

    async def visit(self, url: str) -> None:
        say({"visit": url})

    async def callback(self) -> tuple[str, str | None]:
        query = parse_qs(urlsplit(await self.callbacks.receive()).query)
        return query["code"][0], query["state"][0]

    async def carry_out(self, order: dict[str, Any]) -> Any:
        match order["what"]:
            case "tools":
                return [tool.name for tool in (await self.session.list_tools()).tools]
            case "call":
                result = await self.session.call_tool(order["tool"], order["arguments"])
                return result.model_dump(mode="json", by_alias=True)
            case "state":
                return {"registration": dumped(self.memory.registration), "tokens": dumped(self.memory.tokens)}
            case "expire":
                # This SDK goes by its own clock.
                self.oauth.context.token_expiry_time = time.time() - 1
            case "disconnect":
                self.leave.set()
                await self.left.wait()
            case what:
                raise ValueError(f"what is {what}?")

    async def stay_connected(self, id: int) -> None:
        """Answers the order to connect, and lives until the order to disconnect."""
        self.leave, self.left = anyio.Event(), anyio.Event()
        try:
            async with AsyncExitStack() as stack:
                http = httpx.AsyncClient(auth=self.oauth, timeout=30, trust_env=False)
                await stack.enter_async_context(http)
                transport = streamable_http_client(options["server_url"], http_client=http)
                receive, send, _ = await stack.enter_async_context(transport)
                self.session = await stack.enter_async_context(ClientSession(receive, send))
                await self.session.initialize()
                say({"id": id, "result": None})
                await self.leave.wait()
        except Exception:
            # Also what only turns up once the SDK's own tasks have ended.
            say({"id": id, "error": traceback.format_exc()})
        self.left.set()

    async def answer(self, order: dict[str, Any]) -> None:
        try:
            say({"id": order["id"], "result": await self.carry_out(order)})
        except Exception:
            say({"id": order["id"], "error": traceback.format_exc()})


async def main() -> None:
    send_callback, callbacks = anyio.create_memory_object_stream[str](1)
    program = Program(callbacks)
    async with anyio.create_task_group() as tasks:
        async for line in anyio.wrap_file(sys.stdin):
            order = json.loads(line)
            if "callback" in order:
                await send_callback.send(order["callback"])
            elif order["what"] == "connect":
                tasks.start_soon(program.stay_connected, order["id"])
            else:
                tasks.start_soon(program.answer, order)
        program.leave.set()


def dumped(model: Any) -> Any:
    return model and model.model_dump(mode="json", exclude_none=True)


def say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


anyio.run(main)
