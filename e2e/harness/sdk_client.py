"""The official MCP clients, each with the OAuth of its SDK, and with a browser that a person sits in front of.

What an SDK leaves to its application is little: where tokens are kept, and that the user visits an address.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

# Lets the user visit the address, and returns the one at the client's redirect URI to which they were led.
Visit = Callable[[str], str]


@dataclass(frozen=True)
class Identity:
    """What the client says who it is. Without anything it registers itself with the authorization server."""

    # The address of a document about the client, which is then its client id.
    document_url: str | None = None
    # Agreed on beforehand.
    client_id: str | None = None
    client_secret: str | None = None
    name: str = "An end-to-end test"


@dataclass(frozen=True)
class Setup:
    """Everything that a client must be told."""

    server_url: str
    redirect_uri: str
    identity: Identity
    visit: Visit


class SdkClient(Protocol):
    """One client with its tokens; all of them behave alike towards a test."""

    def connect(self) -> None:
        """Begins an MCP session; authorizes itself, or lets the user do so, if the server asks for it."""

    def disconnect(self) -> None:
        """Ends the session. The tokens stay."""

    def tools(self) -> set[str]: ...

    def call(self, tool: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        """Calls a tool whose answer is a JSON object."""

    def registration(self) -> dict[str, Any]:
        """Who it is at the authorization server."""

    def tokens(self) -> dict[str, Any]:
        """The tokens that it holds now."""

    def expire(self) -> None:
        """Makes it believe that its access token has expired: with the next request it refreshes by itself."""

    def close(self) -> None:
        """Ends session and program, and forgets the tokens."""


# A fixture that starts one; the fixture says with which arguments.
StartClient = Callable[..., SdkClient]


def json_of(result: dict[str, Any]) -> dict[str, Any]:
    """The JSON object in a tool's result, given as it is on the wire."""
    [content] = result["content"]
    assert not result.get("isError"), content
    answer: dict[str, Any] = json.loads(content["text"])
    return answer
