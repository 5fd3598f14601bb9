"""The partner API as a partner meets it: a browser that comes back to the partner's page, and every operation as its
description says it, tried by a program nobody here wrote."""

import copy
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.api_trial import try_api
from harness.browser import Browser
from harness.sidekey import PROVIDER_FILES, Registration, Sidekey, StartSidekey, binary
from harness.simulator import Simulator
from harness.site import Site

SITES = {"values": [{"id": "s-1", "name": "Northwind Research"}, {"id": "s-2", "name": "Northwind Sales"}]}
PLENTY = "1000000/1m"
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
]


class Partner:
    """A service with users of its own, at a Sidekey."""

    def __init__(self, sidekey: Sidekey, key: str, page: str):
        self.sidekey = sidekey
        self.key = key
        self.page = page
        self.url = sidekey.addresses.public_url

    def ask(self, method: str, path: str, **body: str) -> Any:
        headers = {"authorization": f"Bearer {self.key}"}
        answer = self.sidekey.http.request(method, f"{self.url}/api/v1{path}", headers=headers, json=body or None)
        assert answer.status_code in (200, 201), f"{answer.status_code} {answer.text}"
        return answer.json()

    def connect_url(self, provider: str, subject: str) -> str:
        made = self.ask("POST", f"/oauth/{provider}/connect/{subject}", return_to=self.page)
        return str(made["url"])


@pytest.fixture
def page() -> Iterator[Site]:
    """The partner's page."""
    with Site({"/sites": json.dumps(SITES)}) as site:
        yield site


@pytest.fixture
def partner(simulator: Simulator, start_sidekey: StartSidekey, page: Site) -> Partner:
    made = json.loads(subprocess.run([binary(), "api-keys", "generate", "--json"], capture_output=True, check=True).stdout)
    quickbooks = Registration(
        provider="quickbooks",
        client_id=simulator.client_id("quickbooks"),
        client_secret=simulator.client_secret("quickbooks"),
        place="@SIMULATOR@",
        url=simulator.url,
        environment="sandbox",
    )
    tracker = Registration("tracker", simulator.client_id("generic"), simulator.client_secret("generic"))
    file = (PROVIDER_FILES / "tracker.toml").read_text().replace("@SIMULATOR@", simulator.url).replace("@SITES@", page.url)
    tables: dict[str, dict[str, Any]] = {
        "providers.quickbooks": {"callback": "api"},
        "api": {"return_to": [f"{page.url}/done"]},
        "api.keys.partner": {"hash": made["hash"], "subject_prefix": "org-"},
        "limits": {"requests_per_api_key": PLENTY, "failures_per_address": PLENTY},
    }
    sidekey = start_sidekey(
        [quickbooks, tracker], simulator.secrets, tables=tables, files={"providers/tracker.toml": file}
    )
    sidekey.issued.add(made["key"])
    return Partner(sidekey, made["key"], f"{page.url}/done?from=settings")


def test_a_company_is_connected_shown_and_ended(partner: Partner, page: Site) -> None:
    with Browser() as browser:
        end = browser.dance(partner.connect_url("quickbooks", "org-42"))
    assert str(end.url).startswith(page.url), end.text
    told = {"from": "settings", "provider": "quickbooks", "subject": "org-42", "result": "connected"}
    assert page.queries("/done") == [told]
    status = partner.ask("GET", "/oauth/quickbooks/status/org-42")
    assert (status["connected"], status["realm_id"]) == (True, "9341453172058817")
    assert status["company_name"] == "Sandbox Company_US_1"
    assert partner.ask("POST", "/oauth/quickbooks/disconnect/org-42")["revocation"] == "done"
    assert partner.ask("GET", "/oauth/quickbooks/status/org-42")["state"] == "not_connected"


def test_every_operation_does_what_its_description_says(partner: Partner, tmp_path: Path) -> None:
    with Browser() as browser:
        for provider, subject in [("quickbooks", "org-1"), ("quickbooks", "org-2"), ("tracker", "org-3")]:
            browser.dance(partner.connect_url(provider, subject))
    url = partner.connect_url("quickbooks", "org-1")
    document = partner.ask("GET", "/openapi.json")
    site = partner.ask("GET", "/oauth/tracker/sites/org-3")["sites"][0]["id"]
    trial = with_values_of_this_sidekey(document, url.partition("token=")[2], site)
    # A browser that comes from elsewhere is asked first: so a one-time URL can be opened again and again.
    answered = try_api(trial, partner.url, partner.key, {"sec-fetch-site": "none"}, tmp_path, CHECKS)
    # Browsers are led on; programs get an answer.
    good = {("/api/v1/oauth/{provider}/connect/{subject}", "get"): 303}
    for path, operations in document["paths"].items():
        for method in operations:
            statuses = answered[path, method]
            assert not {status for status in statuses if status >= 500}, (path, method, statuses)
            if path.endswith("/callback"):
                # What a provider brings back cannot be made up; a browser that brings it stands above.
                assert 400 in statuses, (path, method, statuses)
            else:
                wanted = good.get((path, method))
                is_good = {status for status in statuses if 200 <= status < 300 or status == wanted}
                assert is_good, (path, method, statuses)


def with_values_of_this_sidekey(document: dict[str, Any], token: str, site: str) -> dict[str, Any]:
    """The document with what only this Sidekey knows: who is connected to what, a one-time URL, a site."""
    filled = copy.deepcopy(document)
    connections = {"disconnect": ("quickbooks", "org-2"), "sites": ("tracker", "org-3")}
    for path, operations in filled["paths"].items():
        provider, subject = next((known for name, known in connections.items() if f"/{name}/" in path), ("quickbooks", "org-1"))
        values = {"provider": provider, "subject": subject, "token": token, "label": "default"}
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] in values and (parameter["name"] != "label" or "/sites/" in path):
                    parameter["schema"] = {"type": "string", "enum": [values[parameter["name"]]]}
                    parameter["required"] = parameter["name"] != "label"
    schemas = filled["components"]["schemas"]
    schemas["ChooseRequest"]["properties"]["site"]["enum"] = [site]
    for name in ("ChooseRequest", "DisconnectRequest"):
        schemas[name]["properties"]["label"] = {"type": ["string", "null"], "enum": ["default", None]}
    return filled
