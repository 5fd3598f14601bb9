"""The official Python client, version 2, within this process."""

import time
from contextlib import ExitStack
from typing import Any

import anyio.to_thread
import httpx2
from anyio.from_thread import start_blocking_portal
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from harness.sdk_client import Setup, json_of


class Memory:
    """What an application keeps for the SDK."""

    def __init__(self, setup: Setup) -> None:
        self.tokens: OAuthToken | None = None
        self.registration: OAuthClientInformationFull | None = None
        identity = setup.identity
        if identity.client_id:
            self.registration = OAuthClientInformationFull(
                client_id=identity.client_id,
                client_secret=identity.client_secret,
                token_endpoint_auth_method="client_secret_post" if identity.client_secret else "none",
                redirect_uris=[AnyUrl(setup.redirect_uri)],
            )

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.registration

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.registration = client_info


class PythonClient:
    """Lives on a thread of its own; tests call it from any."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.memory = Memory(setup)
        self.callback_url = ""
        self.oauth = OAuthClientProvider(
            server_url=setup.server_url,
            client_metadata=OAuthClientMetadata(
                client_name=setup.identity.name, redirect_uris=[AnyUrl(setup.redirect_uri)]
            ),
            storage=self.memory,
            redirect_handler=self._visit,
            callback_handler=self._callback,
            client_metadata_url=setup.identity.document_url,
        )
        self.stack = ExitStack()
        self.portal = self.stack.enter_context(start_blocking_portal())
        self.session = ExitStack()

    def connect(self) -> None:
        with ExitStack() as stack:
            wrap = self.portal.wrap_async_context_manager
            http = stack.enter_context(wrap(httpx2.AsyncClient(auth=self.oauth, timeout=30, trust_env=False)))
            transport = streamable_http_client(self.setup.server_url, http_client=http)
            self.client = stack.enter_context(wrap(Client(transport, read_timeout_seconds=60)))
            self.session = stack.pop_all()

    def disconnect(self) -> None:
        self.session.close()

    def tools(self) -> set[str]:
        return {tool.name for tool in self.portal.call(self.client.list_tools).tools}

    def call(self, tool: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        result = self.portal.call(self.client.call_tool, tool, arguments or {})
        return json_of(result.model_dump(mode="json", by_alias=True))

    def registration(self) -> dict[str, Any]:
        assert self.memory.registration, "it is not registered"
        return self.memory.registration.model_dump(mode="json", exclude_none=True)

    def tokens(self) -> dict[str, Any]:
        return self.memory.tokens.model_dump(mode="json", exclude_none=True) if self.memory.tokens else {}

    def expire(self) -> None:
        # This SDK goes by its own clock.
        self.oauth.context.token_expiry_time = time.time() - 1

    def close(self) -> None:
        with self.stack:
            self.session.close()

    async def _visit(self, url: str) -> None:
        self.callback_url = await anyio.to_thread.run_sync(self.setup.visit, url)

    async def _callback(self) -> AuthorizationCodeResult:
        query = httpx2.URL(self.callback_url).params
        return AuthorizationCodeResult(code=query["code"], state=query.get("state"), iss=query.get("iss"))
