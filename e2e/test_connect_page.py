"""A real browser connects accounts: in a visit, on the user's own page, and by a one-time link.

Everything runs twice, the second time without JavaScript. Every page is looked at by axe, light and dark, on a phone and
on a desktop; pictures of it are kept in `target/screenshots`.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from playwright.sync_api import Browser, Locator, expect

from harness.bare_client import BareClient
from harness.chromium import Window
from harness.sidekey import PROVIDER_FILES, Registration, Sidekey, StartSidekey
from harness.simulator import Simulator
from harness.site import Site

PROVIDERS = ("notion", "google", "microsoft", "github", "quickbooks")
APIS = {"google": ["calendar", "drive", "gmail"], "microsoft": ["outlook", "teams", "onedrive"]}
SITES = {"values": [{"id": "s-1", "name": "Northwind Research"}, {"id": "s-2", "name": "Northwind Sales"}]}

DESK = {
    "upstream": "http://127.0.0.1:9/mcp",
    "providers": ["notion", "google", "microsoft", "github"],
    "required": ["google"],
    "apis": {"google": ["calendar", "drive"], "microsoft": ["outlook", "teams"]},
}
BOOKS = {"upstream": "http://127.0.0.1:9/mcp", "providers": ["quickbooks"], "required": ["quickbooks"]}
BOARDS = {"upstream": "http://127.0.0.1:9/mcp", "providers": ["tracker"], "required": ["tracker"]}

TABLES: dict[str, dict[str, Any]] = {
    "issuer": {"identity": "notion"},
    "servers.desk": DESK,
    "servers.books": BOOKS,
    "servers.boards": BOARDS,
}

LOGO = """<svg xmlns="http://www.w3.org/2000/svg" width="28" height="28" viewBox="0 0 28 28"><circle cx="14" cy="14" r="12" fill="#0b5d3b"/></svg>"""


@pytest.fixture
def companies() -> Iterator[Site]:
    """Says which sites an account has at the made-up company."""
    with Site({"/sites": json.dumps(SITES)}) as site:
        yield site


@pytest.fixture
def start_desk(simulator: Simulator, start_sidekey: StartSidekey, companies: Site) -> Callable[..., Sidekey]:
    """Starts a Sidekey in front of three servers; providers ask their users."""
    for provider in (*PROVIDERS, "generic"):
        simulator.configure(provider, auto_approve=False)
    registrations = [
        Registration(
            provider=provider,
            client_id=simulator.client_id(provider),
            client_secret=simulator.client_secret(provider),
            place="@SIMULATOR@",
            url=simulator.url,
            environment="sandbox" if provider == "quickbooks" else None,
            apis=APIS.get(provider, []),
        )
        for provider in PROVIDERS
    ]
    generic = Registration("tracker", simulator.client_id("generic"), simulator.client_secret("generic"))
    tracker = (PROVIDER_FILES / "tracker.toml").read_text()
    tracker = tracker.replace("@SIMULATOR@", simulator.url).replace("@SITES@", companies.url)

    def start(more: dict[str, dict[str, Any]] | None = None) -> Sidekey:
        files = {"providers/tracker.toml": tracker, "logo.svg": LOGO}
        tables = {**TABLES, **(more or {})}
        return start_sidekey([*registrations, generic], simulator.secrets, tables=tables, files=files)

    return start


@pytest.fixture
def sidekey(start_desk: Callable[..., Sidekey]) -> Sidekey:
    return start_desk()


@pytest.fixture(params=[True, False], ids=["javascript", "no-javascript"])
def window(request: pytest.FixtureRequest, running_chromium: Browser, sidekey: Sidekey) -> Iterator[Window]:
    with closing(Window(running_chromium, javascript=request.param)) as window:
        yield window
        assert window.loaded_from_elsewhere(sidekey.addresses.public_url) == []
        assert not [complaint for complaint in window.complaints if "Content Security Policy" in complaint]


@dataclass
class Visit:
    """A client that sends its user to Sidekey, and waits for them."""

    client: BareClient
    site: Site
    sidekey: Sidekey

    def back(self, window: Window) -> dict[str, str]:
        """What the client is told in the end; a code is worth tokens."""
        window.wait_at("/cb")
        answer = self.site.queries("/cb")[-1]
        if "code" in answer:
            tokens = self.client.exchange(answer["code"])
            self.sidekey.issued |= {answer["code"], tokens["access_token"], tokens["refresh_token"]}
        return answer


@pytest.fixture
def visit(sidekey: Sidekey, site: Site) -> Iterator[Callable[[str], Visit]]:
    clients: list[BareClient] = []

    def begin(server: str) -> Visit:
        url = f"{sidekey.addresses.public_url}/{server}/mcp"
        clients.append(BareClient(url, "Desk Assistant", f"{site.url}/cb"))
        return Visit(clients[-1], site, sidekey)

    yield begin
    for client in clients:
        client.close()


def test_a_first_visit_connects_four_accounts(window: Window, visit: Callable[[str], Visit]) -> None:
    desk = visit("desk")
    window.open(desk.client.authorize_url())
    window.examine("1-consent")
    window.press("Approve")
    agree(window, "notion", "alice")
    # Back where it was, with a card for each. What is required is not there yet: there is no way on.
    window.wait_at("/visit/")
    window.examine("2-visit-at-first")
    assert [card.get_by_role("heading").inner_text() for card in cards(window)] == [
        "Google Workspace", "GitHub", "Microsoft 365", "Notion",
    ]
    expect(window.page.get_by_role("button", name="Continue", exact=True)).to_have_count(0)
    expect(card(window, "Google Workspace")).to_contain_text("Required")
    window.follow("Connect Microsoft 365")
    leave_out(window, "microsoft", "ChannelMessage.Send")
    window.wait_at("/visit/")
    expect(chip(window, "Microsoft 365", "Outlook")).to_contain_text("allowed")
    expect(chip(window, "Microsoft 365", "Teams")).to_contain_text("left out by you")
    expect(window.page.get_by_role("button", name="Continue", exact=True)).to_have_count(0)
    window.examine("3-visit-half-way")
    window.follow("Connect Google Workspace")
    assert asked(window) == {
        "openid", "email", "https://www.googleapis.com/auth/calendar", "https://www.googleapis.com/auth/drive",
    }, "what the server uses, and not all that is enabled"
    agree(window, "google", "alice")
    # One is left: the browser is led on.
    agree(window, "github", "alice")
    assert "code" in desk.back(window)


def test_a_visit_goes_on_without_what_is_optional(window: Window, visit: Callable[[str], Visit]) -> None:
    desk = visit("desk")
    begin(window, desk)
    window.follow("Connect Google Workspace")
    agree(window, "google", "alice")
    window.wait_at("/visit/")
    window.press("Continue")
    assert "code" in desk.back(window)


def test_who_comes_back_late_is_told_so_where_they_were(window: Window, visit: Callable[[str], Visit]) -> None:
    desk = visit("desk")
    begin(window, desk)
    window.follow("Connect Google Workspace")
    window.wait_at("/google/authorize")
    let_time_pass(desk.sidekey, seconds=700)
    agree(window, "google", "alice")
    window.wait_at("/visit/")
    expect(alert(window)).to_contain_text("This sign-in was begun more than ten minutes ago. You can try it again here.")
    window.examine("4-visit-late")
    window.follow("Connect Google Workspace")
    agree(window, "google", "alice")
    window.wait_at("/visit/")
    expect(card(window, "Google Workspace")).to_contain_text("Connected")


def test_after_a_quarter_of_an_hour_nobody_is_led_back(window: Window, sidekey: Sidekey) -> None:
    sign_in(window, sidekey)
    window.press("Connect GitHub")
    window.wait_at("/github/authorize")
    let_time_pass(sidekey, seconds=1000)
    agree(window, "github", "alice")
    window.wait_at("/callback/")
    expect(window.page.get_by_role("heading", level=1)).to_have_text("Too late")
    expect(window.page.locator("main")).to_contain_text("Begin again where you came from")
    window.examine("5-too-late")


def test_a_refusal_is_told_in_the_visit_and_can_be_mended(window: Window, visit: Callable[[str], Visit]) -> None:
    desk = visit("desk")
    begin(window, desk)
    window.follow("Connect Google Workspace")
    refuse(window, "google")
    window.wait_at("/visit/")
    expect(alert(window)).to_contain_text("Google Workspace reports that access was not granted (access_denied).")
    expect(alert(window)).to_contain_text("You can try it again here.")
    window.examine("6-visit-denied")
    window.follow("Connect Google Workspace")
    agree(window, "google", "alice")
    window.wait_at("/visit/")
    expect(card(window, "Google Workspace")).to_contain_text("Connected")
    window.press("Cancel")
    assert desk.back(window)["error"] == "access_denied"


def test_an_administrator_must_agree_first(window: Window, sidekey: Sidekey, simulator: Simulator) -> None:
    sign_in(window, sidekey)
    simulator.configure("microsoft", deny_with="consent_required")
    window.press("Connect Microsoft 365")
    window.wait_at("/account")
    expect(alert(window)).to_contain_text("An administrator must agree")
    expect(alert(window)).to_contain_text(
        "Microsoft 365 wants an administrator of your organization to agree first (consent_required). "
        "Ask the administrator to approve this app there, then connect again."
    )
    window.examine("7-account-administrator")
    window.page.reload()
    expect(alert(window)).to_have_count(0)


def test_another_company_is_not_put_in_the_place_of_the_one_that_is_connected(
    window: Window, sidekey: Sidekey, simulator: Simulator
) -> None:
    sign_in(window, sidekey)
    window.press("Connect QuickBooks Online")
    agree(window, "quickbooks", "alice")
    window.wait_at("/account")
    expect(window.page.get_by_role("status")).to_contain_text("QuickBooks Online is connected.")
    simulator.configure("quickbooks", realm_id="1111111111111")
    window.press("Connect again QuickBooks Online")
    agree(window, "quickbooks", "alice")
    window.wait_at("/account")
    expect(alert(window)).to_contain_text("Not the one that is connected")
    expect(alert(window)).to_contain_text("disconnect it first if the other one is meant")
    window.examine("8-account-other-company")
    # The other company can stand beside the first, under a name of its own.
    card(window, "QuickBooks Online").locator("summary").click()
    window.page.get_by_label("A name for it").and_(window.page.locator("#label-quickbooks")).fill("branch")
    window.press("Connect another account at QuickBooks Online")
    agree(window, "quickbooks", "alice")
    window.wait_at("/account")
    expect(card(window, "QuickBooks Online").locator(".account")).to_have_count(2)
    expect(card(window, "QuickBooks Online")).to_contain_text("branch")
    window.examine("9-account-two-companies")


def test_disconnecting_is_a_step_of_its_own(window: Window, sidekey: Sidekey, simulator: Simulator) -> None:
    sign_in(window, sidekey)
    window.press("Connect GitHub")
    agree(window, "github", "alice")
    window.wait_at("/account")
    window.examine("10-account")
    window.follow("Disconnect GitHub")
    expect(window.page.get_by_role("heading", level=1)).to_have_text("Disconnect GitHub?")
    window.examine("11-disconnect")
    window.follow("Keep it")
    expect(card(window, "GitHub")).to_contain_text("Connected")
    window.follow("Disconnect GitHub")
    window.press("Disconnect GitHub")
    window.wait_at("/account")
    expect(window.page.get_by_role("status")).to_contain_text("GitHub is disconnected.")
    expect(card(window, "GitHub")).to_contain_text("Not connected")
    assert sidekey.connection("github", subject_of(sidekey)) is None


def test_of_two_sites_one_is_chosen(window: Window, visit: Callable[[str], Visit], sidekey: Sidekey) -> None:
    boards = visit("boards")
    begin(window, boards)
    # One step is left: the browser is led on.
    agree(window, "generic", "alice")
    window.page.wait_for_url("**/choose/tracker")
    expect(window.page.get_by_role("radio")).to_have_count(2)
    window.examine("12-choose")
    window.page.get_by_label("Northwind Sales").check()
    window.press("Use this one")
    assert "code" in boards.back(window)
    window.open(f"{sidekey.addresses.public_url}/account")
    expect(card(window, "Trackwell")).to_contain_text("Northwind Sales")
    window.follow("Choose another site Trackwell")
    expect(window.page.get_by_label("Northwind Sales")).to_be_checked()
    window.page.get_by_label("Northwind Research").check()
    window.press("Use this one")
    window.wait_at("/account")
    expect(window.page.get_by_role("status")).to_contain_text("From now on Northwind Research is used at Trackwell.")
    expect(card(window, "Trackwell")).to_contain_text("Northwind Research")


def test_a_one_time_link_leads_to_a_choice_and_can_be_tried_again(
    window: Window, sidekey: Sidekey, running_chromium: Browser
) -> None:
    link = sidekey.connect_link("tracker", "org-42")
    window.open(link)
    window.examine("13-link")
    window.press("Continue to Trackwell")
    refuse(window, "generic")
    window.wait_at("/callback/")
    expect(window.page.locator("main")).to_contain_text("Trackwell reports that access was not granted")
    window.examine("14-link-denied")
    window.press("Try again")
    agree(window, "generic", "alice")
    window.page.wait_for_url("**/connected/tracker/choose")
    window.follow("Not now")
    expect(card(window, "Trackwell")).to_contain_text("Almost done")
    window.examine("15-link-almost")
    window.follow("Choose a site Trackwell")
    window.page.get_by_label("Northwind Sales").check()
    window.press("Use this one")
    expect(window.page.get_by_role("heading", level=1)).to_have_text("Trackwell is connected")
    window.examine("16-link-done")
    with closing(Window(running_chromium, javascript=window.javascript)) as other:
        assert other.open(link) == 404
        other.examine("17-link-over")
        assert other.open(f"{sidekey.addresses.public_url}/connected/tracker/choose") == 403
        assert other.open(f"{sidekey.addresses.public_url}/connected/tracker") == 200
        assert "Northwind" not in other.text() and "alice" not in other.text()


def test_the_keyboard_is_enough(window: Window, sidekey: Sidekey) -> None:
    window.open(f"{sidekey.addresses.public_url}/account")
    tab_to(window, "Sign in with Notion")
    window.page.keyboard.press("Enter")
    window.wait_at("/notion/authorize")
    tab_to(window, "Approve")
    window.page.keyboard.press("Enter")
    window.wait_at("/account")
    tab_to(window, "Connect GitHub")
    window.keep("18-keyboard-focus")
    window.page.keyboard.press("Enter")
    window.wait_at("/github/authorize")
    tab_to(window, "Approve")
    window.page.keyboard.press("Enter")
    window.wait_at("/account")
    expect(card(window, "GitHub")).to_contain_text("Connected")
    tab_to(window, "Connect another account at GitHub")
    window.page.keyboard.press("Enter")
    tab_to(window, "A name for it")
    tab_to(window, "Disconnect GitHub", backwards=True)
    window.page.keyboard.press("Enter")
    tab_to(window, "Disconnect GitHub")
    window.page.keyboard.press("Space")
    window.wait_at("/account")
    expect(card(window, "GitHub")).to_contain_text("Not connected")


def test_nobody_sees_anything_without_signing_in(window: Window, sidekey: Sidekey) -> None:
    for path in ("/account", "/account/connect/github", "/account/disconnect/github", "/account/choose/tracker"):
        assert window.open(f"{sidekey.addresses.public_url}{path}") == 200
        expect(window.page.get_by_role("button")).to_have_text("Sign in with Notion")
    window.examine("19-sign-in")
    assert window.open(f"{sidekey.addresses.public_url}/nothing") == 404
    window.examine("20-nothing")


def test_the_operator_s_name_picture_and_colour_are_ours_to_serve(
    start_desk: Callable[..., Sidekey], running_chromium: Browser
) -> None:
    sidekey = start_desk({"portal": {"name": "Northwind Connect", "logo": "logo.svg", "accent": "#0b5d3b"}})
    with closing(Window(running_chromium)) as window:
        sign_in(window, sidekey)
        expect(window.page.get_by_role("banner")).to_have_text("Northwind Connect")
        assert window.page.title() == "Your account · Northwind Connect"
        logo = window.page.locator(".brand img")
        assert logo.evaluate("image => image.decode().then(() => image.naturalWidth)") == 28, "the picture is there"
        button = window.page.get_by_role("button", name="Connect GitHub", exact=True)
        assert button.evaluate("button => getComputedStyle(button).backgroundColor") == "rgb(11, 93, 59)"
        window.examine("21-branded")
        assert window.loaded_from_elsewhere(sidekey.addresses.public_url) == []


def sign_in(window: Window, sidekey: Sidekey) -> None:
    window.open(f"{sidekey.addresses.public_url}/account")
    window.press("Sign in with Notion")
    agree(window, "notion", "alice")
    window.wait_at("/account")


def begin(window: Window, visit: Visit) -> None:
    """Lets the client in, and signs in."""
    window.open(visit.client.authorize_url())
    window.press("Approve")
    agree(window, "notion", "alice")


def agree(window: Window, profile: str, user: str) -> None:
    window.wait_at(f"/{profile}/authorize")
    window.page.locator("[name=simulated_user]").fill(user)
    window.press("Approve")


def refuse(window: Window, profile: str) -> None:
    window.wait_at(f"/{profile}/authorize")
    window.press("Deny")


def leave_out(window: Window, profile: str, scope: str) -> None:
    """Agrees to everything but one scope, as companies let their users do."""
    window.wait_at(f"/{profile}/authorize")
    address = urlsplit(window.page.url)
    fields = {name: value for name, [value] in parse_qs(address.query).items()}
    assert scope in fields["scope"].split(" ")
    fields["scope"] = " ".join(other for other in fields["scope"].split(" ") if other != scope)
    window.open(address._replace(query=urlencode(fields)).geturl())
    agree(window, profile, "alice")


def asked(window: Window) -> set[str]:
    """The scopes that the provider is asked for."""
    window.page.wait_for_url("**/authorize?**")
    return set(parse_qs(urlsplit(window.page.url).query)["scope"][0].split(" "))


def cards(window: Window) -> list[Locator]:
    return window.page.locator("section.card").all()


def card(window: Window, provider: str) -> Locator:
    return window.page.get_by_role("region", name=provider, exact=True)


def chip(window: Window, provider: str, api: str) -> Locator:
    return card(window, provider).get_by_role("listitem").filter(has_text=api)


def alert(window: Window) -> Locator:
    return window.page.get_by_role("alert")


def tab_to(window: Window, name: str, backwards: bool = False) -> None:
    """Presses the tabulator until what has this name has the focus, and can be seen to have it."""
    for _ in range(60):
        window.page.keyboard.press("Shift+Tab" if backwards else "Tab")
        focused = window.page.locator(":focus")
        if focused.count() and name in (" ".join(focused.inner_text().split()), labels(focused)):
            outline = focused.evaluate("element => getComputedStyle(element).outlineStyle")
            assert outline != "none", f"{name} does not show that it has the focus"
            return
    raise AssertionError(f"{name} cannot be reached: {window.text()}")


def labels(element: Locator) -> str:
    """What a field is called."""
    return str(element.evaluate("element => [...(element.labels ?? [])].map(label => label.innerText).join()"))


def subject_of(sidekey: Sidekey) -> str:
    [subject] = {connection["subject"] for connection in sidekey.command("status")["connections"]}
    return str(subject)


def let_time_pass(sidekey: Sidekey, seconds: int) -> None:
    """Has all sign-ins be begun earlier than they were, while Sidekey is not looking."""
    assert sidekey.stop() == 0
    with closing(sqlite3.connect(sidekey.directory / "data" / "sidekey.db")) as database:
        database.execute("UPDATE flows SET expires_at = expires_at - ?", [seconds * 1000])
        database.commit()
    sidekey.start()
