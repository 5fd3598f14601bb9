"""The Chromium of this machine, headless, as a person would use it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Dialog, Page, Request, sync_playwright

SCREENSHOTS = Path(__file__).parent.parent.parent / "target" / "screenshots"
AXE = Path(__file__).parent.parent / "node_modules" / "axe-core" / "axe.min.js"

# Nothing that calls its maker, and no sandbox: it runs as root, where the pages are our own.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

MILLISECONDS_AT_MOST = 15_000

Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, Scheme] = ("light", "dark")


@dataclass(frozen=True)
class Screen:
    """How large a window is."""

    name: str
    width: int
    height: int


PHONE = Screen("phone", 390, 844)
DESKTOP = Screen("desktop", 1280, 900)
USUAL = Screen("usual", 900, 700)


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Ended by the fixture that started it, and by no signal that was meant for the tests.
        browser = playwright.chromium.launch(
            executable_path=os.environ["CHROMIUM_BIN"],
            args=FLAGS,
            handle_sigint=False,
            handle_sigterm=False,
            handle_sighup=False,
        )
        yield browser
        browser.close()


class Window:
    """A window with cookies of its own. It must not be brought to show a dialog."""

    def __init__(self, browser: Browser, javascript: bool = True):
        self.javascript = javascript
        self.context: BrowserContext = browser.new_context(
            java_script_enabled=javascript, viewport={"width": USUAL.width, "height": USUAL.height}
        )
        self.context.set_default_timeout(MILLISECONDS_AT_MOST)
        self.page: Page = self.context.new_page()
        self.dialogs: list[str] = []
        # What Chromium had to complain about, such as a policy that was not kept.
        self.complaints: list[str] = []
        # What pages asked for by themselves: the page's origin, and the address.
        self.loaded: list[tuple[str, str]] = []
        self.page.on("dialog", self._dismiss)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("request", self._note)

    def close(self) -> None:
        self.context.close()
        assert not self.dialogs, f"a page showed {self.dialogs}"

    def open(self, url: str) -> int:
        """Opens an address as if it was typed in; returns the status."""
        response = self.page.goto(url)
        assert response is not None
        return response.status

    def wait_at(self, path: str) -> None:
        """Waits until the address has a path that begins like this."""
        self.page.wait_for_url(lambda url: urlsplit(url).path.startswith(path))

    def press(self, button: str) -> None:
        self.page.get_by_role("button", name=button, exact=True).click()

    def follow(self, link: str) -> None:
        self.page.get_by_role("link", name=link, exact=True).click()

    def text(self) -> str:
        """What can be read on the page."""
        return self.page.locator("body").inner_text()

    def keep(self, name: str) -> None:
        """Keeps a picture of the whole page, for people to look at."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    def examine(self, name: str) -> None:
        """Looks for barriers on the page, light and dark, on a phone and on a desktop, and keeps pictures of it.

        Without JavaScript nothing can look at it in this way; the page is the same.
        """
        if not self.javascript:
            return
        for screen in (PHONE, DESKTOP):
            self.page.set_viewport_size({"width": screen.width, "height": screen.height})
            for scheme in SCHEMES:
                self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                self.keep(f"{name}-{screen.name}-{scheme}")
                assert self.overflow() == 0, f"{name} is wider than a {screen.name}"
                assert not (barriers := self.barriers()), f"{name}, {screen.name}, {scheme}: {barriers}"
        self.page.emulate_media(color_scheme="light", reduced_motion="no-preference")
        self.page.set_viewport_size({"width": USUAL.width, "height": USUAL.height})

    def barriers(self) -> list[str]:
        """What axe has found: everything that it calls serious or critical, and everything that it calls a failure of
        WCAG 2.2 at level AA. It is evaluated by the debugger; the page's own policy stays as it is.
        """
        self.page.evaluate(AXE.read_text())
        found = self.page.evaluate("() => axe.run(document)")
        assert found["passes"], "axe looked at nothing"
        levels = {"wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"}
        return [
            f"{violation['id']}: {[node['html'] for node in violation['nodes']]}"
            for violation in found["violations"]
            if violation["impact"] in ("serious", "critical") or levels & set(violation["tags"])
        ]

    def overflow(self) -> int:
        """By how much the page is wider than the window."""
        wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(wider))

    def loaded_from_elsewhere(self, origin: str) -> list[str]:
        """What pages of this origin asked others for, besides leading there."""
        return [url for page, url in self.loaded if page == origin and origin_of(url) != origin]

    def _note(self, request: Request) -> None:
        if not request.is_navigation_request():
            self.loaded.append((origin_of(request.frame.url), request.url))

    def _dismiss(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()


def origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
