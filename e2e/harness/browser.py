"""A browser without JavaScript, with its own cookies, and a person in front of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlencode, urljoin

import httpx2

from harness import http, page
from harness.page import Form, Page

# Any name is a user at the OAuth server under test, with any password.
ANSWERS = {"login": "ada", "password": "correct horse"}

STEPS_AT_MOST = 20


@dataclass(frozen=True)
class Person:
    """Who sits there and what they want; by default somebody who agrees to everything."""

    # Signed in under this name at the simulated provider that this URL belongs to.
    user: str | None = None
    simulator_url: str | None = None
    # The button of Sidekey's consent page.
    decision: str = "approve"
    # The providers that stay checked there; None leaves the page as it comes.
    providers: frozenset[str] | None = None
    # Where some pages really are, by their address without the query.
    pages: Mapping[str, str] = field(default_factory=dict)


class Browser:
    """Follows redirects and submits forms, with the headers that browsers send along."""

    def __init__(self, person: Person | None = None) -> None:
        self.person = person or Person()
        self.http = http.client(headers={"accept": "text/html", "user-agent": "Mozilla/5.0"})
        # Every address that was asked for, in order.
        self.visited: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def dance(self, url: str) -> httpx2.Response:
        """Opens `url` and does what the person wants, until a page wants nothing more."""
        end = self._walk(url, stop=lambda _: False)
        assert isinstance(end, httpx2.Response)
        return end

    def dance_until_callback(self, url: str) -> str:
        """The same, but stops before the provider's answer is delivered; returns the URL that carries it."""
        return self._dance_until(url, lambda target: httpx2.URL(target).path.startswith("/callback/"))

    def authorize(self, url: str, redirect_uri: str) -> str:
        """The same, but stops where an OAuth client's redirect URI would be opened; returns it with what it carries."""
        return self._dance_until(url, lambda target: target.partition("?")[0] == redirect_uri)

    def open(self, url: str) -> httpx2.Response:
        """One request, redirects not followed."""
        return self._request("GET", url, site="none")

    def _dance_until(self, url: str, stop: Callable[[str], bool]) -> str:
        end = self._walk(url, stop)
        assert isinstance(end, str), f"the dance ended at {end.url} with {end.status_code}:\n{end.text}"
        return end

    def _walk(self, url: str, stop: Callable[[str], bool]) -> httpx2.Response | str:
        followed: set[str] = set()
        site = "none"
        response = self._request("GET", url, site)
        for _ in range(STEPS_AT_MOST):
            here = str(response.url)
            if response.is_redirect:
                target = urljoin(here, response.headers["location"])
                if stop(target):
                    return target
                # What began on one site and leads over another is from there no longer.
                site = _site(here, target) if site == "same-origin" else site
                response = self._request("GET", target, site)
                continue
            seen = page.parse(response.text) if response.status_code == 200 else Page()
            steps = [link for link in seen.links if _is_connect(link) and link not in followed]
            link = seen.refresh or next(iter(steps), None)
            if link is not None:
                followed.add(link)
                target = urljoin(here, link)
                if stop(target):
                    return target
                site = _site(here, target)
                response = self._request("GET", target, site)
            elif seen.forms and not _is_over(here):
                site = "same-origin"
                response = self._submit(response, self._form_for_person(seen.forms))
            else:
                return response
        raise AssertionError(f"still not there after {STEPS_AT_MOST} steps: {self.visited}")

    def _form_for_person(self, forms: list[Form]) -> Form:
        return next((form for form in forms if form.action.endswith("/finish")), forms[0])

    def _submit(self, shown: httpx2.Response, form: Form) -> httpx2.Response:
        target = urljoin(str(shown.url), form.action)
        chosen = {"provider": set(self.person.providers)} if self.person.providers is not None else {}
        button = ("decision", self.person.decision)
        assert not form.buttons("decision") or self.person.decision in form.buttons("decision"), shown.text
        content = form.filled_in(ANSWERS, chosen, button)
        if form.method == "get":
            return self._request("GET", str(httpx2.URL(target, params=content)), _site(str(shown.url), target))
        origin = f"{shown.url.scheme}://{shown.url.netloc.decode()}"
        # Fetch, "append a request Origin header": a page that sends no referrer sends no origin either.
        is_shy = shown.headers.get("referrer-policy") == "no-referrer"
        headers = {"origin": "null" if is_shy else origin, "content-type": "application/x-www-form-urlencoded"}
        body = urlencode(content)
        return self._request("POST", target, _site(str(shown.url), target), headers, body)

    def _request(
        self, method: str, url: str, site: str, headers: dict[str, str] | None = None, body: str | None = None
    ) -> httpx2.Response:
        url = self._as_user(self._where_it_is(url))
        self.visited.append(url)
        described = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
        return self.http.request(method, url, headers={**described, **(headers or {})}, content=body)

    def _where_it_is(self, url: str) -> str:
        page, question_mark, query = url.partition("?")
        return f"{self.person.pages.get(page, page)}{question_mark}{query}"

    def _as_user(self, url: str) -> str:
        """The simulated provider learns from the address who is signed in there, instead of from a cookie."""
        simulator_url, user = self.person.simulator_url, self.person.user
        is_theirs = simulator_url is not None and url.startswith(f"{simulator_url}/")
        if not (user and is_theirs and httpx2.URL(url).path.endswith("/authorize")):
            return url
        return str(httpx2.URL(url).copy_set_param("simulated_user", user))


def _is_connect(link: str) -> bool:
    """Whether a link on Sidekey's page for a visit leads to a provider."""
    path = httpx2.URL(link).path
    return path.startswith("/visit/") and "/connect/" in path


def _is_over(page: str) -> bool:
    """Whether this is where a connect link has led to. What is offered there is no step of the dance."""
    return httpx2.URL(page).path.startswith("/connected/")


def _site(here: str, there: str) -> str:
    one, other = httpx2.URL(here), httpx2.URL(there)
    is_same = (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)
    # Providers live on other sites than Sidekey, though here all of them are on loopback.
    return "same-origin" if is_same else "cross-site"
