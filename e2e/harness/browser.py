"""A browser with its own cookies, and a person in front of it who agrees to everything."""

from typing import Self
from urllib.parse import urljoin

import httpx2

from harness import http
from harness.forms import Form, forms_of

# Any name is a user at the OAuth server under test, with any password.
ANSWERS = {"login": "ada", "password": "correct horse"}

STEPS_AT_MOST = 20


class Browser:
    """Follows redirects and submits forms, with the headers that browsers send along."""

    def __init__(self) -> None:
        self.http = http.client(headers={"accept": "text/html", "user-agent": "Mozilla/5.0"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def dance(self, url: str) -> httpx2.Response:
        """Opens `url` and agrees to everything, until a page wants nothing more."""
        page = self._walk(url, stop_at=None)
        assert isinstance(page, httpx2.Response)
        return page

    def dance_until_callback(self, url: str) -> str:
        """The same, but stops before the provider's answer is delivered; returns the URL that carries it."""
        callback = self._walk(url, stop_at="/callback/")
        assert isinstance(callback, str), f"the dance ended at {callback.url} with {callback.status_code}"
        return callback

    def open(self, url: str) -> httpx2.Response:
        """One request, redirects not followed."""
        return self.http.get(url)

    def _walk(self, url: str, stop_at: str | None) -> httpx2.Response | str:
        response = self.http.get(url)
        for _ in range(STEPS_AT_MOST):
            if response.is_redirect:
                target = urljoin(str(response.url), response.headers["location"])
                if stop_at is not None and httpx2.URL(target).path.startswith(stop_at):
                    return target
                response = self.http.get(target)
            elif response.status_code == 200 and (forms := forms_of(response.text)):
                response = self._submit(response, forms[0])
            else:
                return response
        raise AssertionError(f"still not there after {STEPS_AT_MOST} steps, now at {response.url}")

    def _submit(self, page: httpx2.Response, form: Form) -> httpx2.Response:
        target = urljoin(str(page.url), form.action)
        content = form.filled_in(ANSWERS)
        if form.method == "get":
            return self.http.get(target, params=content)
        origin = f"{page.url.scheme}://{page.url.netloc.decode()}"
        headers = {"origin": origin, "sec-fetch-site": "same-origin", "sec-fetch-mode": "navigate"}
        return self.http.post(target, data=content, headers=headers)
