"""QuickBooks: the company arrives with the callback, and callers need not know it."""

from collections.abc import Callable

import pytest

from harness.browser import Browser
from harness.sidekey import Sidekey
from harness.simulator import Simulator, newest_token

REALM = "9341453172058817"


@pytest.fixture
def sidekey(sidekey_at_simulator: Callable[..., Sidekey]) -> Sidekey:
    return sidekey_at_simulator("quickbooks")


def test_a_placeholder_realm_becomes_the_connected_company(sidekey: Sidekey, simulator: Simulator) -> None:
    sidekey.connect("quickbooks", "alice")
    connection = sidekey.connection("quickbooks", "alice")
    assert connection is not None and connection["state"] == "active"
    assert connection["captured"]["realm_id"] == REALM
    handle = sidekey.issue_handle("quickbooks", "alice")
    answer = sidekey.api("/quickbooks/v3/company/0/companyinfo/0", token=handle)
    assert answer.status_code == 200, answer.text
    assert answer.json()["CompanyInfo"]["Id"] == REALM
    [grant] = simulator.grants("quickbooks")
    [call] = simulator.accepted_calls("quickbooks")
    assert call.request.startswith(f"GET /v3/company/{REALM}/companyinfo/")
    assert (call.grant_id, call.token_id) == (grant["id"], newest_token(grant)["id"])


def test_a_query_goes_through_as_written(sidekey: Sidekey) -> None:
    sidekey.connect("quickbooks", "alice")
    handle = sidekey.issue_handle("quickbooks", "alice")
    query = "query=select%20*%20from%20Customer%20where%20Name%20%3D%20%27A%26B%27&minorversion=75"
    answer = sidekey.api(f"/quickbooks/v3/company/0/query?{query}", token=handle)
    assert [customer["Id"] for customer in answer.json()["QueryResponse"]["Customer"]] == ["1", "2"]
    echo = sidekey.api(f"/quickbooks/v3/company/0/echo?{query}", token=handle)
    assert echo.json()["query"] == query


def test_another_company_is_not_reached(sidekey: Sidekey, simulator: Simulator) -> None:
    """Neither refused by the provider nor answered for the own company: Sidekey says what is wrong."""
    sidekey.connect("quickbooks", "alice")
    handle = sidekey.issue_handle("quickbooks", "alice")
    answer = sidekey.api("/quickbooks/v3/company/1111111111111111/companyinfo/1111111111111111", token=handle)
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:sidekey:error:other-tenant"), answer.text
    assert simulator.counters("quickbooks")["api_calls"] == 0


def test_a_callback_without_the_company_is_refused(sidekey: Sidekey, simulator: Simulator, browser: Browser) -> None:
    callback = browser.dance_until_callback(sidekey.connect_link("quickbooks", "alice"))
    answer = browser.open(callback.replace(f"realmId={REALM}", "nothing=here"))
    assert answer.status_code == 400, answer.text
    assert simulator.counters("quickbooks")["code_exchanges"] == 0
    assert sidekey.connection("quickbooks", "alice") is None
