"""The dance, rotation and expiry against an OAuth server that nobody here wrote: the npm package `oidc-provider`.

It insists on PKCE, sends `iss` back, and lets a refresh token be used once: a second use ends the grant.
"""

import pytest

from harness.browser import Browser
from harness.oidc_provider import OidcProvider
from harness.polling import wait_until
from harness.sidekey import Sidekey


@pytest.fixture
def handle(sidekey_at_oidc: Sidekey) -> str:
    """A handle of Alice, who has connected."""
    sidekey_at_oidc.connect("oidc-provider", "alice")
    return sidekey_at_oidc.issue_handle("oidc-provider", "alice")


def test_connecting_and_calling(sidekey_at_oidc: Sidekey, oidc: OidcProvider, handle: str) -> None:
    assert state_of(sidekey_at_oidc) == "active"
    answer = sidekey_at_oidc.api("/oidc-provider/notes", token=handle)
    assert answer.status_code == 200, answer.text
    # The name that was typed into the login form of the server.
    assert (answer.json()["account"], answer.json()["notes"]) == ("ada", ["buy milk"])
    ledger = oidc.ledger()
    assert (ledger.code_exchanges, ledger.refusals) == (1, [])
    assert ledger.calls == [{"token_sha256": answer.json()["token_sha256"], "accepted": True}]


def test_calls_never_fail_while_tokens_expire_and_rotate(
    sidekey_at_oidc: Sidekey, oidc: OidcProvider, handle: str
) -> None:
    tokens: list[str] = []

    def third_token_seen() -> bool:
        answer = sidekey_at_oidc.api("/oidc-provider/notes", token=handle)
        assert answer.status_code == 200, f"after {len(tokens)} tokens: {answer.status_code} {answer.text}"
        token = answer.json()["token_sha256"]
        if token not in tokens:
            tokens.append(token)
        assert token == tokens[-1], "an older token came back"
        return len(tokens) == 3

    wait_until(third_token_seen, "two rotations", at_most_seconds=40)
    ledger = oidc.ledger()
    assert ledger.refreshes >= 2 and ledger.refusals == []
    assert all(call["accepted"] for call in ledger.calls), "a token was used after its time"
    connection = sidekey_at_oidc.connection("oidc-provider", "alice")
    assert connection is not None and connection["state"] == "active"


def test_a_revoked_grant_needs_the_user_and_says_so(sidekey_at_oidc: Sidekey, oidc: OidcProvider, handle: str) -> None:
    assert sidekey_at_oidc.api("/oidc-provider/notes", token=handle).status_code == 200
    oidc.revoke_grants()
    wait_until(lambda: state_of(sidekey_at_oidc) == "needs_reauth", "the connection needs its user")
    assert [refusal.partition(":")[0] for refusal in oidc.ledger().refusals] == ["invalid_grant"]

    def explained() -> bool:
        answer = sidekey_at_oidc.api("/oidc-provider/notes", token=handle)
        return answer.headers["content-type"] == "application/problem+json"

    # The access token was good until a moment ago, and may still be used until its announced end.
    wait_until(explained, "callers are told by Sidekey")
    before = oidc.ledger()
    answer = sidekey_at_oidc.api("/oidc-provider/notes", token=handle)
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:sidekey:error:needs-reauth")
    assert "sidekey connect oidc-provider --subject alice" in answer.json()["next_step"]
    assert oidc.ledger() == before, "the provider was asked in vain"


def test_connecting_again_heals_a_revoked_grant(sidekey_at_oidc: Sidekey, oidc: OidcProvider, handle: str) -> None:
    oidc.revoke_grants()
    wait_until(lambda: state_of(sidekey_at_oidc) == "needs_reauth", "the connection needs its user")
    sidekey_at_oidc.connect("oidc-provider", "alice")
    assert state_of(sidekey_at_oidc) == "active"
    # The MCP server keeps the handle that it has.
    assert sidekey_at_oidc.api("/oidc-provider/notes", token=handle).status_code == 200


def tampered(callback: str, parameter: str, value: str | None) -> str:
    """The same URL with another value of one parameter, or without it."""
    address, _, query = callback.partition("?")
    pairs = [pair.partition("=")[::2] for pair in query.split("&")]
    assert parameter in dict(pairs), f"the callback carries no {parameter}"
    kept = [(name, value if name == parameter else old) for name, old in pairs]
    return f"{address}?{'&'.join(f'{name}={text}' for name, text in kept if text is not None)}"


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        pytest.param("state", "AAAA", id="another state"),
        pytest.param("state", None, id="no state"),
        pytest.param("iss", "http%3A%2F%2F127.0.0.1%3A1", id="another issuer"),
        pytest.param("iss", None, id="no issuer"),
        pytest.param("code", None, id="no code"),
    ],
)
def test_a_wrong_callback_is_refused(
    sidekey_at_oidc: Sidekey, oidc: OidcProvider, browser: Browser, parameter: str, value: str | None
) -> None:
    callback = browser.dance_until_callback(sidekey_at_oidc.connect_link("oidc-provider", "alice"))
    answer = browser.open(tampered(callback, parameter, value))
    assert answer.status_code == 400, answer.text
    assert oidc.ledger().code_exchanges == 0 and state_of(sidekey_at_oidc) is None


def test_a_callback_in_another_browser_is_refused(
    sidekey_at_oidc: Sidekey, oidc: OidcProvider, browser: Browser
) -> None:
    """Otherwise an attacker could make a victim connect the attacker's account, or the other way round."""
    callback = browser.dance_until_callback(sidekey_at_oidc.connect_link("oidc-provider", "alice"))
    with Browser() as other_browser:
        answer = other_browser.open(callback)
    assert answer.status_code == 400, answer.text
    assert oidc.ledger().code_exchanges == 0 and state_of(sidekey_at_oidc) is None


def test_a_callback_works_once(sidekey_at_oidc: Sidekey, oidc: OidcProvider, browser: Browser) -> None:
    callback = browser.dance_until_callback(sidekey_at_oidc.connect_link("oidc-provider", "alice"))
    assert browser.dance(callback).status_code == 200
    assert browser.open(callback).status_code == 400
    # The server would have ended the grant had it seen the code twice.
    assert (oidc.ledger().code_exchanges, oidc.ledger().refusals) == (1, [])
    assert state_of(sidekey_at_oidc) == "active"


def state_of(sidekey: Sidekey) -> str | None:
    """How Alice's connection stands; None if there is none."""
    connection = sidekey.connection("oidc-provider", "alice")
    return connection["state"] if connection else None
