"""What tests ask for.

Each test gets a Sidekey of its own, with its own store and ports. After each test, Sidekey's log and its data directory
are searched for every secret that existed at the providers and for every handle: none may be there.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from harness import oidc_provider
from harness.browser import Browser
from harness.leaks import assert_no_secrets_in_files
from harness.oidc_provider import OidcProvider
from harness.program import Program
from harness.sidekey import Addresses, Registration, Sidekey
from harness.simulator import Simulator

StartSidekey = Callable[..., Sidekey]


@pytest.fixture(scope="session")
def running_simulator() -> Iterator[Simulator]:
    with tempfile.TemporaryDirectory() as directory:
        program = Program([os.environ["SIMULATOR_BIN"]], Path(directory) / "simulator.log", os.environ)
        with closing(Simulator(program.announced_url())) as simulator:
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
    """Starts the Sidekey of this test: `start_sidekey(registrations, secrets, fixed_subject=None)`.

    `secrets` tells afterwards what must not be in its log and its data directory.
    """
    started: list[tuple[Sidekey, Callable[[], set[str]]]] = []
    # Not pytest's own directory: its name is too long for a Unix socket. This one has mode 0700 as well.
    with tempfile.TemporaryDirectory(prefix="sidekey-") as directory:

        def start(
            registrations: list[Registration], secrets: Callable[[], set[str]], fixed_subject: str | None = None
        ) -> Sidekey:
            sidekey = Sidekey(Path(directory), addresses, registrations, fixed_subject)
            started.append((sidekey, secrets))
            sidekey.start()
            return sidekey

        yield start
        for sidekey, secrets in started:
            exit_code = sidekey.stop()
            print(sidekey.program.output())
            assert exit_code == 0, f"Sidekey ended with {exit_code} after SIGTERM"
            assert_no_secrets_in_files(sidekey.directory, secrets() | sidekey.handles)


@pytest.fixture
def sidekey_at_simulator(simulator: Simulator, start_sidekey: StartSidekey) -> StartSidekey:
    """Starts a Sidekey for some of the simulated providers: `(*providers, fixed_subject=None)`."""

    def start(*providers: str, fixed_subject: str | None = None) -> Sidekey:
        registrations = [
            Registration(
                provider=provider,
                client_id=simulator.client_id(provider),
                client_secret=simulator.client_secret(provider),
                place="@SIMULATOR@",
                url=simulator.url,
                environment="sandbox" if provider == "quickbooks" else None,
            )
            for provider in providers
        ]
        return start_sidekey(registrations, simulator.secrets, fixed_subject)

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
