"""A person who uses MCP clients, with a browser of their own."""

from typing import Self

from harness.browser import Browser, Person

# Nobody listens there: browsers stop in front of it.
REDIRECT_URI = "http://127.0.0.1:21987/oauth/callback"


class User:
    """Signed in at the simulated provider under `name`."""

    def __init__(self, name: str, simulator_url: str, person: Person | None = None):
        self.name = name
        self.browser = Browser(person or Person(user=name, simulator_url=simulator_url))
        # What their clients were told by way of the browser, one for each visit.
        self.callbacks: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.browser.http.close()

    def visit(self, url: str) -> str:
        """Opens the address at which a client asks to be authorized, and agrees."""
        callback = self.browser.authorize(url, REDIRECT_URI)
        self.callbacks.append(callback)
        return callback
