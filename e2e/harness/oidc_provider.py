"""The npm package `oidc-provider`, with a small API that it protects (see `oidc/`)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import http

SERVER = Path(__file__).parent.parent / "oidc" / "server.mjs"

CLIENT_ID = "sidekey"
# With every character that RFC 6749 section 2.3.1 has encoded in a Basic header.
CLIENT_SECRET = "se:cr+et/of=the%client &co"
ACCESS_LIFETIME_SECONDS = 6


@dataclass(frozen=True)
class Ledger:
    """What really happened at the server."""

    code_exchanges: int
    refreshes: int
    refusals: list[str]
    calls: list[dict[str, Any]]


class OidcProvider:
    """A running server, seen from outside."""

    def __init__(self, url: str):
        self.url = url
        self.http = http.client(base_url=url)

    def close(self) -> None:
        self.http.close()

    def ledger(self) -> Ledger:
        return Ledger(**self.http.get("/control/ledger").raise_for_status().json())

    def secrets(self) -> set[str]:
        """Every secret value that ever existed here: tokens, codes, the client secret."""
        return {CLIENT_SECRET, *self.http.get("/control/secrets").raise_for_status().json()}

    def expire_access_tokens(self) -> None:
        """All access tokens stop working now, earlier than announced."""
        self.http.post("/control/expire").raise_for_status()

    def revoke_grants(self) -> None:
        """The user takes all consent back."""
        self.http.post("/control/revoke").raise_for_status()


def command(redirect_uri: str) -> list[str]:
    """How the server is started."""
    return ["node", str(SERVER), redirect_uri, CLIENT_ID, CLIENT_SECRET, str(ACCESS_LIFETIME_SECONDS)]
