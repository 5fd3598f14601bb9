"""A real browser goes through the visit by which a user lets an MCP client in.

The client is one that lies: its name is an attempt to be more than text. Pictures of the pages are kept in
`target/screenshots`.
"""

from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect

from harness.bare_client import BareClient
from harness.chromium import Window
from harness.mcp_http_server import McpHttpServer
from harness.sidekey import Sidekey, StartSidekey
from harness.simulator import Simulator
from harness.site import Site
from servers import NOTION_HANDLE

HOSTILE_NAME = """<script>alert("name")</script><img src=x onerror=alert(1)>'"><b>Bank</b>"""

APPROVE = "[name=decision][value=approve]"
DENY = "[name=decision][value=deny]"
OTHER_ACCOUNT = "[name=decision][value=other_account]"


@pytest.fixture
def window(running_chromium: Browser) -> Iterator[Window]:
    with closing(Window(running_chromium)) as window:
        yield window


@pytest.fixture
def sidekey(sidekey_at_simulator: StartSidekey, simulator: Simulator, shared_notion: McpHttpServer) -> Sidekey:
    """In front of one server with two providers; the user is who they are at Notion. Providers ask their users."""
    for provider in ("notion", "gitlab"):
        simulator.configure(provider, auto_approve=False)
    tables = {
        "issuer": {"identity": "notion"},
        "servers.notion": {
            "upstream": shared_notion.url,
            "providers": ["notion", "gitlab"],
            "handle": NOTION_HANDLE,
        },
    }
    return sidekey_at_simulator("notion", "gitlab", tables=tables)


@pytest.fixture
def client(sidekey: Sidekey, site: Site) -> Iterator[BareClient]:
    server_url = f"{sidekey.addresses.public_url}/notion/mcp"
    with closing(BareClient(server_url, HOSTILE_NAME, f"{site.url}/cb")) as client:
        yield client


def test_both_providers_are_connected_one_after_the_other(
    window: Window, client: BareClient, site: Site, simulator: Simulator, sidekey: Sidekey
) -> None:
    assert window.open(client.authorize_url()) == 200
    window.keep("1-consent")
    assert {box.get_attribute("value") for box in window.page.locator("[name=provider]").all()} == {"notion", "gitlab"}
    assert all(box.is_checked() for box in window.page.locator("[name=provider]").all())
    # Where the code will go is what a user can recognize a client by, for anybody can take any name.
    assert urlsplit(site.url).netloc in window.text()
    window.page.locator(APPROVE).click()
    # Nobody is signed in: the provider that says who the user is comes first.
    approve_at_provider(window, "notion", "alice")
    # One is left: the browser is led on.
    approve_at_provider(window, "gitlab", "alice")
    tokens = exchange(window, client, site, sidekey)
    assert tokens["token_type"] == "Bearer"
    assert [len(simulator.grants(provider)) for provider in ("notion", "gitlab")] == [1, 1]


def test_a_provider_that_is_not_wanted_is_not_connected(
    window: Window, client: BareClient, site: Site, simulator: Simulator, sidekey: Sidekey
) -> None:
    window.open(client.authorize_url())
    window.page.locator("[name=provider][value=gitlab]").uncheck()
    window.keep("1-consent-for-one")
    window.page.locator(APPROVE).click()
    approve_at_provider(window, "notion", "alice")
    exchange(window, client, site, sidekey)
    assert [len(simulator.grants(provider)) for provider in ("notion", "gitlab")] == [1, 0]


def test_a_user_who_does_not_agree_goes_back_with_an_error(
    window: Window, client: BareClient, site: Site, simulator: Simulator
) -> None:
    window.open(client.authorize_url())
    window.page.locator(DENY).click()
    window.wait_at("/cb")
    [answer] = site.queries("/cb")
    assert (answer["error"], answer["state"], answer["iss"]) == ("access_denied", client.state, client.issuer)
    assert "code" not in answer
    assert simulator.grants("notion") == []


def test_a_refusal_at_the_provider_is_said_where_it_can_be_tried_again(
    window: Window, client: BareClient, site: Site, sidekey: Sidekey
) -> None:
    begin_with_notion_alone(window, client)
    deny_at_provider(window, "notion")
    window.wait_at("/visit/")
    window.keep("3-visit-after-refusal")
    assert site.requests == [], "the client was told before the user gave up"
    expect(window.page.locator("main")).to_contain_text("access_denied")
    window.page.locator("a[href$='/connect/notion']").click()
    approve_at_provider(window, "notion", "alice")
    exchange(window, client, site, sidekey)


def test_a_user_can_give_up_at_the_providers(window: Window, client: BareClient, site: Site) -> None:
    begin_with_notion_alone(window, client)
    deny_at_provider(window, "notion")
    window.wait_at("/visit/")
    window.page.locator("form[action$='/cancel'] button").click()
    window.wait_at("/cb")
    [answer] = site.queries("/cb")
    assert (answer["error"], answer["state"], answer["iss"]) == ("access_denied", client.state, client.issuer)


def test_who_is_signed_in_is_said_and_can_be_changed(
    window: Window, client: BareClient, site: Site, simulator: Simulator, sidekey: Sidekey
) -> None:
    begin_with_notion_alone(window, client)
    approve_at_provider(window, "notion", "alice")
    exchange(window, client, site, sidekey)
    window.open(client.authorize_url())
    window.keep("4-consent-for-somebody-known")
    assert "alice" in window.text()
    window.page.locator("[name=provider][value=gitlab]").uncheck()
    # The page that is left has loaded long since: only the next one says how it goes on.
    with window.page.expect_navigation():
        window.page.locator(OTHER_ACCOUNT).click()
    # Whether the user is asked again is for Sidekey to decide.
    if window.page.locator(APPROVE).count():
        window.page.locator("[name=provider][value=gitlab]").uncheck()
        window.page.locator(APPROVE).click()
    approve_at_provider(window, "notion", "bob")
    window.wait_at("/cb")
    assert "code" in site.queries("/cb")[-1]
    assert {grant["user"] for grant in simulator.grants("notion")} == {"alice", "bob"}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        pytest.param({"client_id": "nobody"}, "unknown-client", id="unknown client"),
        pytest.param({"redirect_uri": "https://attacker.example/cb"}, "other-redirect", id="another redirect URI"),
        pytest.param({"redirect_uri": None}, "no-redirect", id="no redirect URI"),
    ],
)
def test_what_must_not_be_sent_back_is_said_on_a_page(
    window: Window, client: BareClient, site: Site, changes: dict[str, str | None], name: str
) -> None:
    assert window.open(client.authorize_url(**changes)) == 400
    window.keep(f"5-error-{name}")
    assert window.page.locator("h1").count() == 1 and window.page.locator("form").count() == 0
    assert window.page.url.startswith(client.issuer) and site.requests == []


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"response_type": "token"}, "unsupported_response_type", id="implicit"),
        pytest.param({"code_challenge": None}, "invalid_request", id="no PKCE"),
        pytest.param({"code_challenge_method": "plain"}, "invalid_request", id="plain PKCE"),
        pytest.param({"scope": "everything"}, "invalid_scope", id="unknown scope"),
        pytest.param({"resource": "https://elsewhere.example/mcp"}, "invalid_target", id="another resource"),
    ],
)
def test_what_the_client_did_wrong_is_told_to_the_client(
    window: Window, client: BareClient, site: Site, changes: dict[str, str | None], error: str
) -> None:
    window.open(client.authorize_url(**changes))
    assert window.page.url.startswith(f"{site.url}/cb")
    [answer] = site.queries("/cb")
    assert (answer["error"], answer["state"], answer["iss"]) == (error, client.state, client.issuer)


def test_there_is_nothing_at_a_visit_that_does_not_exist(window: Window, client: BareClient) -> None:
    status = window.open(f"{client.issuer}/visit/AAAAAAAAAAAAAAAAAAAAAAAAAA")
    window.keep("5-error-no-visit")
    assert 400 <= status < 500 and window.page.locator("h1").count() == 1


def test_the_visit_of_one_browser_is_nothing_in_another(
    window: Window, client: BareClient, site: Site, running_chromium: Browser
) -> None:
    """Otherwise an attacker could begin, and let a victim connect the victim's account for the attacker's client."""
    window.open(client.authorize_url())
    window.page.locator(APPROVE).click()
    deny_at_provider(window, "notion")
    window.wait_at("/visit/")
    with closing(Window(running_chromium)) as other:
        for path in ("", "/connect/notion"):
            assert 400 <= other.open(f"{window.page.url}{path}") < 500, other.page.url
        other.keep("5-error-another-browser")
    assert site.requests == []


def test_a_name_is_only_ever_text(window: Window, client: BareClient) -> None:
    window.open(client.authorize_url())
    expect(window.page.locator("main")).to_contain_text(HOSTILE_NAME)
    assert window.page.locator("script, img, b").count() == 0
    # Nor did anything come along that the page did not need.
    assert window.complaints == []
    assert window.page.evaluate("document.cookie") == "", "scripts can read a cookie"


def test_a_script_that_got_in_would_not_run(window: Window, client: BareClient) -> None:
    window.open(client.authorize_url())
    window.page.evaluate(
        """() => {
            const script = document.createElement('script');
            script.textContent = 'window.ran = true';
            document.body.append(script);
            document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror="window.ran = true">');
        }"""
    )
    assert window.page.evaluate("window.ran") is None
    assert any("Content Security Policy" in complaint for complaint in window.complaints), window.complaints


def test_a_form_that_got_in_cannot_send_anything_elsewhere(window: Window, client: BareClient, site: Site) -> None:
    window.open(client.authorize_url())
    before = window.page.url
    window.page.evaluate(
        """target => {
            const form = document.createElement('form');
            form.method = 'post';
            form.action = target;
            document.body.append(form);
            form.submit();
        }""",
        f"{site.url}/stolen",
    )
    window.page.wait_for_timeout(1_000)
    assert (window.page.url, site.requests) == (before, [])
    assert any("form-action" in complaint for complaint in window.complaints), window.complaints


def test_pages_cannot_be_framed(window: Window, client: BareClient) -> None:
    with Site({"/": f'<iframe src="{client.authorize_url().replace("&", "&amp;")}"></iframe>'}) as attacker:
        window.open(attacker.url)
        [_, frame] = window.page.frames
        frame.wait_for_load_state()
        assert frame.url.startswith("chrome-error://") and frame.locator("form").count() == 0
    assert any("frame" in complaint for complaint in window.complaints), window.complaints


def test_everything_works_without_javascript(
    running_chromium: Browser, client: BareClient, site: Site, simulator: Simulator, sidekey: Sidekey
) -> None:
    with closing(Window(running_chromium, javascript=False)) as window:
        window.open(client.authorize_url())
        expect(window.page.locator("main")).to_contain_text(HOSTILE_NAME)
        window.page.locator(APPROVE).click()
        approve_at_provider(window, "notion", "alice")
        approve_at_provider(window, "gitlab", "alice")
        exchange(window, client, site, sidekey)
    assert [len(simulator.grants(provider)) for provider in ("notion", "gitlab")] == [1, 1]


def test_the_session_cookie_is_for_sidekey_alone(
    window: Window, client: BareClient, site: Site, sidekey: Sidekey
) -> None:
    begin_with_notion_alone(window, client)
    approve_at_provider(window, "notion", "alice")
    exchange(window, client, site, sidekey)
    cookies = {cookie["name"]: cookie for cookie in window.context.cookies(client.issuer)}
    session = cookies["sidekey_session"]
    assert session["httpOnly"] and session["sameSite"] == "Lax" and session["path"] == "/", session
    sidekey.issued.add(session["value"])


def begin_with_notion_alone(window: Window, client: BareClient) -> None:
    """Agrees to the use of one provider; the browser is led there."""
    window.open(client.authorize_url())
    window.page.locator("[name=provider][value=gitlab]").uncheck()
    window.page.locator(APPROVE).click()


def approve_at_provider(window: Window, provider: str, user: str) -> None:
    window.wait_at(f"/{provider}/authorize")
    window.page.locator("[name=simulated_user]").fill(user)
    window.press("Approve")


def deny_at_provider(window: Window, provider: str) -> None:
    window.wait_at(f"/{provider}/authorize")
    window.press("Deny")


def exchange(window: Window, client: BareClient, site: Site, sidekey: Sidekey) -> dict[str, str]:
    """Waits until the browser is back, and gets the tokens."""
    window.wait_at("/cb")
    answer = site.queries("/cb")[-1]
    assert (answer["state"], answer["iss"]) == (client.state, client.issuer), answer
    tokens = client.exchange(answer["code"])
    sidekey.issued |= {answer["code"], tokens["access_token"], tokens["refresh_token"]}
    return tokens
