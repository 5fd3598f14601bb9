"""An OAuth client as simple as can be, for tests that want to say things that no SDK would say."""

import base64
import hashlib
import secrets
from typing import Any
from urllib.parse import urlencode

import httpx2

from harness import http


class BareClient:
    """Registers itself, and can be sent back to `redirect_uri`."""

    def __init__(self, server_url: str, name: str, redirect_uri: str):
        self.http = http.client()
        self.server_url = server_url
        self.redirect_uri = redirect_uri
        self.state = secrets.token_urlsafe(16)
        self.verifier = secrets.token_urlsafe(48)
        self.metadata = self._discover()
        registration = {"client_name": name, "redirect_uris": [redirect_uri], "token_endpoint_auth_method": "none"}
        answer = self.http.post(self.metadata["registration_endpoint"], json=registration)
        assert answer.status_code == 201, answer.text
        self.client_id = str(answer.json()["client_id"])

    def close(self) -> None:
        self.http.close()

    @property
    def issuer(self) -> str:
        return str(self.metadata["issuer"])

    def authorize_url(self, **changes: str | None) -> str:
        """Where the user is sent; a change to None leaves the parameter out."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).decode().rstrip("=")
        parameters: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "state": self.state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "resource": self.server_url,
            **changes,
        }
        given = {name: value for name, value in parameters.items() if value is not None}
        return f"{self.metadata['authorization_endpoint']}?{urlencode(given)}"

    def exchange(self, code: str) -> dict[str, Any]:
        """The tokens for a code."""
        answer = self.http.post(
            self.metadata["token_endpoint"],
            data={
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": self.redirect_uri,
                "client_id": self.client_id,
                "code_verifier": self.verifier,
                "resource": self.server_url,
            },
        )
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    def _discover(self) -> dict[str, Any]:
        """Follows the trail that begins with a refusal (RFC 9728)."""
        refusal = self.http.post(self.server_url, json={})
        assert refusal.status_code == 401, refusal.text
        [_, rest] = refusal.headers["www-authenticate"].split('resource_metadata="')
        resource = self._read(rest.split('"')[0])
        assert resource["resource"] == self.server_url, resource
        [issuer] = resource["authorization_servers"]
        metadata = self._read(f"{issuer}/.well-known/oauth-authorization-server")
        assert metadata["issuer"] == issuer, metadata
        return metadata

    def _read(self, url: str) -> dict[str, Any]:
        answer: httpx2.Response = self.http.get(url)
        assert answer.status_code == 200, f"{url}: {answer.status_code} {answer.text}"
        document: dict[str, Any] = answer.json()
        return document
