"""The Chromium of this machine, headless, as a person would use it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Dialog, Page, sync_playwright

SCREENSHOTS = Path(__file__).parent.parent.parent / "target" / "e2e-screenshots"

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
        self.context: BrowserContext = browser.new_context(
            java_script_enabled=javascript, viewport={"width": 900, "height": 700}
        )
        self.context.set_default_timeout(MILLISECONDS_AT_MOST)
        self.page: Page = self.context.new_page()
        self.dialogs: list[str] = []
        # What Chromium had to complain about, such as a policy that was not kept.
        self.complaints: list[str] = []
        self.page.on("dialog", self._dismiss)
        self.page.on("console", lambda message: self.complaints.append(message.text))

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

    def text(self) -> str:
        """What can be read on the page."""
        return self.page.locator("body").inner_text()

    def keep(self, name: str) -> None:
        """Keeps a picture of the whole page, for people to look at."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    def _dismiss(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()
