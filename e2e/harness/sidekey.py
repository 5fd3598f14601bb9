"""A Sidekey of the test's own: configured, started, used over its command line and its listeners."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from harness import http
from harness.browser import Browser, Person
from harness.polling import wait_until
from harness.ports import free_ports
from harness.program import Program
from harness.toml import Tables, merged, toml

PROVIDER_FILES = Path(__file__).parent.parent / "providers"


@dataclass(frozen=True)
class Addresses:
    """Where a Sidekey listens. Known before it starts: providers want to know the redirect URI."""

    public_port: int
    egress_port: int
    metrics_port: int

    @classmethod
    def free(cls) -> "Addresses":
        return cls(*free_ports(3))

    @property
    def public_url(self) -> str:
        return f"http://127.0.0.1:{self.public_port}"

    @property
    def egress_url(self) -> str:
        return f"http://127.0.0.1:{self.egress_port}"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.metrics_port}"

    def redirect_uri(self, provider: str) -> str:
        return f"{self.public_url}/callback/{provider}"


@dataclass(frozen=True)
class Registration:
    """An app at a provider, and where that provider is: `place` is what stands for it in `providers/*.toml`.

    Without a place the bundled entry is used as it is.
    """

    provider: str
    client_id: str
    client_secret: str
    place: str | None = None
    url: str = ""
    environment: str | None = None
    # Which of its APIs are enabled, where that is not the default one.
    apis: list[str] = field(default_factory=list)
    # What this test adds to the file in `providers/`.
    additions: Tables = field(default_factory=dict)

    @property
    def secret_variable(self) -> str:
        return f"{self.provider.upper().replace('-', '_')}_CLIENT_SECRET"


class Sidekey:
    """One installation in a directory of its own.

    `tables` are added to its configuration, and go before what stands there otherwise. `files` lie beside it.
    """

    def __init__(
        self,
        directory: Path,
        addresses: Addresses,
        registrations: list[Registration],
        fixed_subject: str | None = None,
        tables: Tables | None = None,
        files: dict[str, str] | None = None,
        launcher: Sequence[str] = (),
    ):
        self.directory = directory
        # What starts the server, where something is to be between.
        self.launcher = launcher
        self.addresses = addresses
        self.config = directory / "sidekey.toml"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "RUST_BACKTRACE": "1",
            **{registration.secret_variable: registration.client_secret for registration in registrations},
        }
        self.http = http.client()
        # What was issued here, to MCP servers and clients: neither the log nor the store may know it.
        self.issued: set[str] = set()
        self._write_key()
        self._write_provider_files(registrations)
        for name, text in (files or {}).items():
            self._write_file(name, text)
        self.config.write_text(toml(merged(configuration(addresses, registrations, fixed_subject), tables or {})))

    def start(self) -> None:
        command = [*self.launcher, binary(), "serve", "--config", str(self.config)]
        self.program = Program(command, self.directory / "sidekey.log", self.environment)
        wait_until(self._is_ready, "Sidekey is ready")

    def stop(self) -> int:
        """Returns the exit code."""
        return self.program.stop()

    def restart(self) -> None:
        """Ends it as an operator would, and starts it again with what it has on disk."""
        assert self.stop() == 0, self.program.output()
        self.start()

    def close(self) -> None:
        self.http.close()

    def command(self, *arguments: str) -> Any:
        """Runs a sub-command and returns what it says, as JSON."""
        command = [binary(), *arguments, "--config", str(self.config), "--json"]
        done = subprocess.run(command, env=self.environment, capture_output=True, check=False, text=True, timeout=30)
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def connect_link(self, provider: str, subject: str) -> str:
        """A one-time link for the subject's browser."""
        return str(self.command("connect", provider, "--subject", subject)["url"])

    def connect(self, provider: str, subject: str, person: Person | None = None) -> None:
        """The subject connects in a browser and agrees to everything."""
        with Browser(person) as browser:
            page = browser.dance(self.connect_link(provider, subject))
        ending = f"the dance ended at {page.url} with {page.status_code}:\n{page.text}"
        assert page.status_code == 200 and str(page.url).startswith(self.addresses.public_url), ending

    def issue_handle(self, provider: str, subject: str) -> str:
        handle = str(self.command("handle", "issue", "--subject", subject, "--provider", provider)["handle"])
        self.issued.add(handle)
        return handle

    def printed_environment(self, subject: str, files: Path, *options: str) -> dict[str, str]:
        """What `sidekey env` says to set for a program of the subject, whose files it writes into `files`."""
        place = ["--issue", "--format", "json", "--files", str(files), "--write", str(files)]
        command = [binary(), "env", "--config", str(self.config), "--subject", subject, *place, *options]
        done = subprocess.run(command, env=self.environment, capture_output=True, check=False, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        printed: dict[str, str] = json.loads(done.stdout)
        self.issued.add(handle_in(printed))
        return printed

    def bare_environment(self, home: Path) -> dict[str, str]:
        """What every program gets, before Sidekey adds something."""
        return {"PATH": os.environ["PATH"], "HOME": str(home)}

    def run_command(self, *options: str, command: Sequence[str | Path] = ()) -> list[str]:
        """How a program is started under `sidekey run`; without one, the command of the recipe."""
        own = ["--", *map(str, command)] if command else []
        return [binary(), "run", "--config", str(self.config), *options, *own]

    def connection(self, provider: str, subject: str) -> dict[str, Any] | None:
        """How a connection stands; None if there is none."""
        connections = self.command("status")["connections"]
        wanted = (entry for entry in connections if (entry["provider"], entry["subject"]) == (provider, subject))
        return next(wanted, None)

    def api(self, path: str, token: str, method: str = "GET") -> httpx2.Response:
        """An API call at the egress listener, as an MCP server would make it."""
        url = f"{self.addresses.egress_url}{path}"
        return self.http.request(method, url, headers={"authorization": f"Bearer {token}"})

    def _is_ready(self) -> bool:
        self.program.assert_running()
        try:
            return self.http.get(f"{self.addresses.metrics_url}/readyz").status_code == 200
        except httpx2.TransportError:
            return False

    def _write_key(self) -> None:
        command = [binary(), "keys", "generate"]
        done = subprocess.run(command, env=self.environment, capture_output=True, check=True, timeout=30)
        key = self.directory / "sidekey.key"
        key.touch(mode=0o600)
        key.write_bytes(done.stdout)

    def _write_provider_files(self, registrations: list[Registration]) -> None:
        directory = self.directory / "providers"
        directory.mkdir()
        for registration in registrations:
            if registration.place is None:
                continue
            text = (PROVIDER_FILES / f"{registration.provider}.toml").read_text()
            text = text.replace(registration.place, registration.url)
            (directory / f"{registration.provider}.toml").write_text(f"{text}\n{toml(registration.additions)}")

    def _write_file(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


# A fixture that starts one; the fixture says with which arguments.
StartSidekey = Callable[..., Sidekey]


def binary() -> str:
    return os.environ["SIDEKEY_BIN"]


def configuration(addresses: Addresses, registrations: list[Registration], fixed_subject: str | None) -> Tables:
    """What stands in `sidekey.toml` in every test."""
    return {
        "": {"provider_directory": "providers"},
        "public": {"listen": f"127.0.0.1:{addresses.public_port}"},
        "egress": {
            "listen": f"127.0.0.1:{addresses.egress_port}",
            **({"subject": fixed_subject} if fixed_subject else {}),
        },
        "metrics": {"listen": f"127.0.0.1:{addresses.metrics_port}"},
        "store": {"keys": ["file:sidekey.key"]},
        # Short-lived tokens in tests: early enough for a busy machine.
        "refresh": {"largest_share": 0.4},
        # Everything that Sidekey itself would ever write, so that the search for secrets is worth something.
        "logging": {"level": "debug"},
        **{f"providers.{registration.provider}": provider_table(registration) for registration in registrations},
    }


def handle_in(environment: Mapping[str, str]) -> str:
    """The handle of a program that has these variables."""
    return httpx2.URL(environment["HTTPS_PROXY"]).username


def provider_table(registration: Registration) -> dict[str, Any]:
    return {
        "client_id": registration.client_id,
        "client_secret": f"env:{registration.secret_variable}",
        **({"environment": registration.environment} if registration.environment else {}),
        **({"apis": registration.apis} if registration.apis else {}),
    }
