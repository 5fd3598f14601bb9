"""What tests ask for.

Each test gets a Sidekey of its own, with its own store and ports. After each test, Sidekey's log and its data directory
are searched for every secret that existed at the providers, and for every handle and token that Sidekey gave out: none
may be there.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser as Chromium

from fronts import DOCUMENT_FILES, notion_front
from harness import oidc_provider
from harness.browser import Browser
from harness.chromium import chromium
from harness.leaks import assert_no_secrets_in_files
from harness.mcp_http_server import McpHttpServer
from harness.oidc_provider import OidcProvider
from harness.ports import free_ports
from harness.program import Program
from harness.sdk_client import Identity, SdkClient, Setup, StartClient
from harness.sidekey import Addresses, Registration, Sidekey, StartSidekey
from harness.simulator import Hosts, Simulator
from harness.site import Site
from harness.toml import Tables, merged
from harness.user import REDIRECT_URI, User
from servers import shared_notion_server


@pytest.fixture(scope="session")
def running_simulator() -> Iterator[Simulator]:
    with tempfile.TemporaryDirectory() as directory:
        ca = Path(directory) / "companies.pem"
        command = [os.environ["SIMULATOR_BIN"], "--hosts-listen", "127.0.0.1:0", "--hosts-ca", str(ca)]
        program = Program(command, Path(directory) / "simulator.log", os.environ)
        announced = program.announced()
        hosts = Hosts(announced["hosts"]["address"], ca, announced["hosts"]["names"])
        with closing(Simulator(announced["url"], hosts)) as simulator:
            yield simulator
        program.stop()


@pytest.fixture
def simulator(running_simulator: Simulator) -> Simulator:
    """The simulated providers, with nothing in their ledger."""
    running_simulator.reset()
    return running_simulator


@pytest.fixture
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def running_chromium() -> Iterator[Chromium]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def site() -> Iterator[Site]:
    """Where a client waits for its users to come back."""
    with Site() as site:
        yield site


@pytest.fixture
def addresses() -> Addresses:
    return Addresses.free()


@pytest.fixture
def oidc(addresses: Addresses) -> Iterator[OidcProvider]:
    """The OAuth server from npm, which knows the Sidekey of this test as its client."""
    command = oidc_provider.command(addresses.redirect_uri("oidc-provider"))
    with tempfile.TemporaryDirectory() as directory:
        program = Program(command, Path(directory) / "oidc-provider.log", os.environ)
        with closing(OidcProvider(program.announced_url())) as oidc:
            yield oidc
        program.stop()
        print(program.output())


@pytest.fixture
def start_sidekey(addresses: Addresses) -> Iterator[StartSidekey]:
    """Starts the Sidekey of this test: `start_sidekey(registrations, secrets, **how)`, where `how` is for `Sidekey`.

    `secrets` tells afterwards what must not be in its log and its data directory.
    """
    started: list[tuple[Sidekey, Callable[[], set[str]]]] = []
    # Not pytest's own directory: its name is too long for a Unix socket. This one has mode 0700 as well.
    with tempfile.TemporaryDirectory(prefix="sidekey-") as directory:

        def start(registrations: list[Registration], secrets: Callable[[], set[str]], **how: Any) -> Sidekey:
            sidekey = Sidekey(Path(directory), addresses, registrations, **how)
            started.append((sidekey, secrets))
            sidekey.start()
            return sidekey

        yield start
        for sidekey, secrets in started:
            exit_code = sidekey.stop()
            sidekey.close()
            print(sidekey.program.output())
            assert exit_code == 0, f"Sidekey ended with {exit_code} after SIGTERM"
            assert_no_secrets_in_files(sidekey.directory, secrets() | sidekey.issued)


@pytest.fixture
def sidekey_at_simulator(simulator: Simulator, start_sidekey: StartSidekey) -> StartSidekey:
    """Starts a Sidekey for some of the simulated providers: `(*providers, additions={}, **how)`.

    `additions` are tables for the entries, by provider; `how` is for `Sidekey`.
    """

    def start(*providers: str, additions: dict[str, Tables] | None = None, **how: Any) -> Sidekey:
        registrations = [
            Registration(
                provider=provider,
                client_id=simulator.client_id(provider),
                client_secret=simulator.client_secret(provider),
                place="@SIMULATOR@",
                url=simulator.url,
                environment="sandbox" if provider == "quickbooks" else None,
                additions=(additions or {}).get(provider, {}),
            )
            for provider in providers
        ]
        return start_sidekey(registrations, simulator.secrets, **how)

    return start


@pytest.fixture
def sidekey_at_companies(simulator: Simulator, start_sidekey: StartSidekey) -> StartSidekey:
    """Starts a Sidekey with bundled entries as they are, to which alice is connected: `(*providers, apis={}, resolve={}, front={})`.

    The simulator is behind the real names of all companies; `resolve` has some lead elsewhere. `apis` are those enabled at
    a provider, where that is more than its default one. With a `front`, tables of MCP servers, users connect there.
    """

    def start(
        *providers: str,
        apis: dict[str, list[str]] | None = None,
        resolve: dict[str, str] | None = None,
        front: Tables | None = None,
    ) -> Sidekey:
        registrations = [
            Registration(
                provider=provider,
                client_id=simulator.client_id(provider),
                client_secret=simulator.client_secret(provider),
                environment="sandbox" if provider == "quickbooks" else None,
                apis=(apis or {}).get(provider, []),
            )
            for provider in providers
        ]
        hosts = simulator.hosts
        tables: Tables = {
            "egress": {"extra_ca": "companies.pem"},
            "egress.resolve": {**dict.fromkeys(hosts.names, hosts.address), **(resolve or {})},
        }
        files = {"companies.pem": hosts.ca.read_text()}
        sidekey = start_sidekey(registrations, simulator.secrets, tables=merged(tables, front or {}), files=files)
        for provider in () if front else providers:
            sidekey.connect(provider, "alice", simulator.person("alice"))
        return sidekey

    return start


@pytest.fixture
def sidekey_at_oidc(oidc: OidcProvider, start_sidekey: StartSidekey) -> Sidekey:
    """A Sidekey for the OAuth server from npm."""
    registration = Registration(
        provider="oidc-provider",
        client_id=oidc_provider.CLIENT_ID,
        client_secret=oidc_provider.CLIENT_SECRET,
        place="@OIDC@",
        url=oidc.url,
    )
    return start_sidekey([registration], oidc.secrets)


@pytest.fixture
def alice(simulator: Simulator) -> Iterator[User]:
    with User("alice", simulator.url) as user:
        yield user


@pytest.fixture
def bob(simulator: Simulator) -> Iterator[User]:
    with User("bob", simulator.url) as user:
        yield user


@pytest.fixture
def shared_notion(addresses: Addresses) -> Iterator[McpHttpServer]:
    """The unmodified Notion server, for all users."""
    [port] = free_ports(1)
    with shared_notion_server(addresses.egress_port, port) as server:
        yield server


@pytest.fixture
def start_notion_front(sidekey_at_simulator: StartSidekey) -> StartSidekey:
    """Starts a Sidekey in front of a Notion server: `(upstream, tables={}, additions={})`."""

    def start(upstream: str, tables: Tables | None = None, additions: dict[str, Tables] | None = None) -> Sidekey:
        everything = merged(notion_front(upstream), tables or {})
        return sidekey_at_simulator("notion", additions=additions, tables=everything, files=DOCUMENT_FILES)

    return start


@pytest.fixture
def start_client() -> Iterator[StartClient]:
    """Starts an official client of a user: `(make, sidekey, user, identity=Identity(), path="/notion/mcp")`.

    It is not connected yet.
    """
    started: list[tuple[SdkClient, Sidekey, User]] = []

    def start(
        make: Callable[[Setup], SdkClient],
        sidekey: Sidekey,
        user: User,
        identity: Identity | None = None,
        path: str = "/notion/mcp",
    ) -> SdkClient:
        server_url = f"{sidekey.addresses.public_url}{path}"
        client = make(Setup(server_url, REDIRECT_URI, identity or Identity(), user.visit))
        started.append((client, sidekey, user))
        return client

    yield start
    for client, sidekey, user in started:
        try:
            sidekey.issued |= secrets_of(client, user)
        finally:
            client.close()


def secrets_of(client: SdkClient, user: User) -> set[str]:
    """What only the client should know: tokens, its secret, the codes that came with the browser."""
    codes = {query["code"] for url in user.callbacks if "code" in (query := httpx2.URL(url).params)}
    tokens = {client.tokens()[name] for name in ("access_token", "refresh_token") if name in client.tokens()}
    secret = client.registration().get("client_secret")
    return codes | tokens | ({secret} if secret else set())
