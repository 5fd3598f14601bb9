"""The simulated providers: steering them, and reading their ledger."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness import http
from harness.browser import Person


@dataclass(frozen=True)
class Call:
    """An API call that a provider accepted: what was called, and with whose token."""

    request: str
    grant_id: str
    token_id: str


# The pages where users of the real companies sign in and agree, and where the simulator has them.
SIGN_IN_PAGES = {
    "https://github.com/login/oauth/authorize": "/github/authorize",
    "https://gitlab.com/oauth/authorize": "/gitlab/authorize",
    "https://accounts.google.com/o/oauth2/v2/auth": "/google/authorize",
    "https://login.microsoftonline.com/common/oauth2/v2.0/authorize": "/microsoft/authorize",
    "https://api.notion.com/v1/oauth/authorize": "/notion/authorize",
    "https://slack.com/oauth/v2/authorize": "/slack/authorize",
    "https://accounts.spotify.com/authorize": "/spotify/authorize",
    "https://todoist.com/oauth/authorize": "/todoist/authorize",
    "https://appcenter.intuit.com/connect/oauth2": "/quickbooks/authorize",
    "https://auth.atlassian.com/authorize": "/atlassian/authorize",
    "https://www.figma.com/oauth": "/figma/authorize",
    "https://zoom.us/oauth/authorize": "/zoom/authorize",
}


@dataclass(frozen=True)
class Hosts:
    """The companies behind their real host names: where they all are, and who vouches for them."""

    address: str
    ca: Path
    names: list[str]


class Simulator:
    """A running simulator, seen from outside."""

    def __init__(self, url: str, hosts: Hosts):
        self.url = url
        self.hosts = hosts
        self.http = http.client(base_url=url)

    def close(self) -> None:
        self.http.close()

    def person(self, user: str) -> Person:
        """Somebody who is signed in at all companies."""
        pages = {page: f"{self.url}{place}" for page, place in SIGN_IN_PAGES.items()}
        return Person(user=user, simulator_url=self.url, pages=pages)

    def client_id(self, profile: str) -> str:
        return str(self._get(f"/control/settings/{profile}")["client_id"])

    def client_secret(self, profile: str) -> str:
        return str(self._get(f"/control/settings/{profile}")["client_secret"])

    def reset(self) -> None:
        self._post("/control/reset")

    def expire(self, profile: str) -> None:
        """All access tokens stop working now, earlier than announced."""
        assert self._post(f"/control/expire/{profile}")["expired"] > 0, "nothing was there to expire"

    def configure(self, profile: str, **settings: Any) -> None:
        """Changes how a provider behaves, until the next test."""
        self.http.put(f"/control/settings/{profile}", json=settings).raise_for_status()

    def add_to_answer(self, profile: str, fields: dict[str, Any], nth: int = 1) -> None:
        """Adds fields to what the nth API call from now on answers; who may call is decided as ever."""
        fault = {"profile": profile, "endpoint": "api", "nth": nth, "kind": "body_patch", "set": fields}
        self._post("/control/faults", fault)

    def counters(self, profile: str) -> dict[str, int]:
        counters: dict[str, int] = self._profile(profile)["counters"]
        return counters

    def grants(self, profile: str) -> list[dict[str, Any]]:
        """Oldest first."""
        grants: list[dict[str, Any]] = self._profile(profile)["grants"]
        return grants

    def accepted_calls(self, profile: str) -> list[Call]:
        """Oldest first. The simulator accepts a call only with an access token that is valid at that moment."""
        ledger = self._get("/control/ledger")
        owners = {
            token["id"]: grant["id"]
            for grant in ledger["profiles"][profile]["grants"]
            for token in grant["access_tokens"]
        }
        return [
            Call(event["detail"], owners[event["token_id"]], event["token_id"])
            for event in ledger["events"]
            if event["profile"] == profile and event["kind"] == "api_ok"
        ]

    def calls(self, profile: str) -> list[dict[str, Any]]:
        """All calls to the API, oldest first: with whose token (`user`, `grant`, `generation`), whether it was
        accepted, and the `call-...` that the caller put into it (`marker`).
        """
        calls: list[dict[str, Any]] = self._get(f"/control/calls?profile={profile}")
        return calls

    def secrets(self) -> set[str]:
        """Every secret value that ever existed here: tokens, codes, client secrets."""
        return {value for values in self._get("/control/tokens").values() for value in values}

    def _profile(self, profile: str) -> dict[str, Any]:
        ledger: dict[str, Any] = self._get("/control/ledger")["profiles"][profile]
        return ledger

    def _get(self, path: str) -> Any:
        return self.http.get(path).raise_for_status().json()

    def _post(self, path: str, body: Any = None) -> Any:
        return self.http.post(path, json=body).raise_for_status().json()


def newest_token(grant: dict[str, Any]) -> dict[str, Any]:
    """The access token of a grant that is the last issued, and still works."""
    token: dict[str, Any] = grant["access_tokens"][-1]
    assert token["dead_at_ms"] is None, "the newest token was killed"
    return token


def hash_of(value: str) -> str:
    """How the ledger names a value without showing it."""
    return sha256(value.encode()).hexdigest()
