"""Every `sidekey`, `make` and `curl` command in the README, in `docs/` and in `examples/` is run.

They run in a network of their own, where all ports are as the documents have them, the companies are at their real
names, and a Sidekey serves for which alice has connected her accounts. What a document leaves to the reader is in the
tables below. A command that fails here is wrong in the document, or needs a line in one of them; the failure says
which.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import name_server
from harness.bare_client import BareClient
from harness.browser import Browser
from harness.documents import ROOT, Mention, Script, commands_in, documents, is_name, snippets_in, spelled_out
from harness.namespace import Namespace, with_files
from harness.program import Program
from harness.sidekey import Addresses, Registration, Sidekey, binary
from harness.simulator import Hosts, Simulator

# What a document leaves to the reader, and what stands for it here.
STAND_INS = {
    "https://sidekey.example.com": "http://127.0.0.1:8700",
    "{public_url}": "http://127.0.0.1:8700",
    "sidekey:8701": "127.0.0.1:8701",
    "the application's id": "@CLIENT_ID@",
    "PROVIDER": "notion",
    "DIRECTORY": "elsewhere",
    "--provider P": "--provider notion",
    "--recipe R": "--recipe notion",
    "--subject S": "--subject alice",
    "--label L": "--label default",
    "--since TIME": "--since 2026-01-01",
    "user:...": "alice",
    "FILE": "sidekey.toml",
    "NAME": "notion",
    "CMD": "my-mcp-server",
    "handle revoke ID": "handle revoke @HANDLE_ID@",
    "grants revoke ID": "grants revoke @GRANT_ID@",
    "grants revoke g_9f2c...": "grants revoke @GRANT_ID@",
    ".../dist/index.js": "dist/index.js",
}

# Other programs that stand in the same blocks, or that recipes start. They only have to be called.
CALLED = ["cargo", "kubectl", "npx", "uvx", "node", "my-mcp-server", "my-fork", "benches/run"]

# What is not run as it stands there, and why.
NOT_RUN = {
    "sidekey providers lint FILE": "FILE is a provider's file: tests/it/providers_cli.rs",
    "sidekey sites PROVIDER --subject S [--label L] [--choose ID]": "needs a choice of sites: tests/it/sites.rs",
    "sidekey backup FILE": "FILE must not be there: tests/it/operate.rs",
    "sidekey restore FILE": "needs a server that was stopped: tests/it/operate.rs",
    "sidekey config explain KEY": "KEY is one of the configuration: tests/it/cli_snapshots.rs",
    "sidekey audit --follow --outcome dead": "goes on until it is interrupted: tests/it/operate.rs",
    "sidekey store confirm": "needs a store that was restored: tests/it/sentinel.rs",
    "sidekey sites PROVIDER --subject S": "needs a choice of sites: tests/it/sites.rs",
    "sidekey run --recipe github": "an abbreviation in a sentence",
    "sidekey run --recipe github -- my-fork": "an abbreviation in a sentence",
    "sidekey connect --subject alice": "an abbreviation in a sentence",
    "sidekey handle issue --label branch": "an abbreviation in a sentence",
}

# `make` is asked what it would do. These are what really runs the targets.
TARGETS = {
    "bench": "by hand, on a quiet machine; docs/benchmarks.md",
    "bridge": "by hand, on a quiet machine; docs/benchmarks.md",
    "chaos": "make test, with 20 kills",
    "crossed": "make test, with fewer calls: tests/it/crossed_tokens.rs",
    "demo": "tests/it/demo.rs",
    "e2e": "make test",
    "recipes": "by hand: it takes what the registries have today",
    "schema": "make test compares what it writes",
    "setup": "make test",
    "test": "this is it",
}

# Commands after which something is no longer as the others expect it, and what mends that.
AFTERWARDS = {r"sidekey disconnect (\S+) --subject (\S+).*": r"sidekey connect \1 --subject \2"}

E2E = Path(__file__).parent
PROVIDERS = ["notion", "github", "gitlab", "quickbooks", "google", "slack", "microsoft", "atlassian", "figma", "zoom"]
COMPANIES = "10.77.0.2"
VISITOR = "alice"

FOUND = {document: commands_in(document) for document in documents()}
# Configurations that a reader is to copy as they stand.
SNIPPETS = [
    snippet for document in [ROOT / "README.md", ROOT / "docs/quickstart.md"] for snippet in snippets_in(document)
]
SCRIPTS = [script for scripts, _ in FOUND.values() for script in scripts]
MENTIONS = {mention.text: mention for _, mentions in FOUND.values() for mention in mentions}


@dataclass
class Place:
    """A network with the companies in it, and a directory in which a reader works."""

    namespace: Namespace
    simulator: Simulator
    directory: Path
    # Which files stand elsewhere in its view, by their place.
    files: dict[str, Path]
    # What the shell of the reader has set besides.
    variables: dict[str, str]

    def run(self, script: str, where: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Runs what a reader would type; what it has started in the background ends with it."""
        environment = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "HOME": str(self.directory),
            "SSL_CERT_FILE": str(self.directory / "companies.pem"),
            **self.variables,
        }
        script = "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n" + script
        command = with_files(self.files, ["bash", "-e", "-u", "-o", "pipefail", "-c", script])
        with self.namespace.inside():
            return subprocess.run(
                command,
                cwd=where,
                env=environment,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

    @property
    def programs(self) -> Path:
        return self.directory / "bin"

    def add_program(self, name: str, script: str) -> None:
        file = self.programs / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)


def make_place(stack: ExitStack) -> Place:
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="docs-")))
    directory.chmod(0o755)
    namespace = stack.enter_context(closing(Namespace()))
    namespace.ip("address", "add", f"{COMPANIES}/32", "dev", "lo")
    ca = directory / "companies.pem"
    with namespace.inside():
        companies = Program(
            [os.environ["SIMULATOR_BIN"], "--hosts-listen", f"{COMPANIES}:443", "--hosts-ca", str(ca)],
            directory / "simulator.log",
            os.environ,
        )
        stack.callback(companies.stop)
        announced = companies.announced()
    names = {name: [COMPANIES] for name in announced["hosts"]["names"]}
    with namespace.inside():
        named = Program(
            [sys.executable, name_server.__file__, COMPANIES, json.dumps(names)], directory / "names.log", os.environ
        )
        stack.callback(named.process.wait)
        stack.callback(named.process.kill)
        named.announced()
    simulator = stack.enter_context(closing(Simulator(announced["url"], Hosts(f"{COMPANIES}:443", ca, []))))
    (directory / "resolv.conf").write_text(f"nameserver {COMPANIES}\n")
    place = Place(namespace, simulator, directory, {"/etc/resolv.conf": directory / "resolv.conf"}, {})
    # A link that is printed is opened.
    visitor = f'PYTHONPATH="{E2E}" "{sys.executable}" -m harness.visitor "{simulator.url}" {VISITOR}'
    connect = f'printed=$("{binary()}" "$@") && echo "$printed" && echo "$printed" | {visitor}'
    place.add_program(
        "sidekey",
        f'if [ "$1" = connect ] && [ "${{2:---help}}" != --help ]; then {connect}; else exec "{binary()}" "$@"; fi',
    )
    place.add_program("make", f'exec /usr/bin/make --no-print-directory --dry-run --directory "{ROOT}" "$@"')
    for name in CALLED:
        place.add_program(Path(name).name, "exit 0")
    return place


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    if os.geteuid() != 0:
        pytest.skip("a network of its own takes root")
    with ExitStack() as stack:
        yield make_place(stack)


@pytest.fixture
def empty_place(place: Place) -> Iterator[Place]:
    """Another network, in which nobody serves."""
    with ExitStack() as stack:
        yield make_place(stack)


@pytest.fixture
def empty_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sidekey-") as directory:
        yield Path(directory)


@pytest.fixture
def workbench(place: Place, served: Path) -> Iterator[Path]:
    """A directory in which a block may leave what it likes; the configuration is that of the one that serves."""
    place.variables["SIDEKEY_CONFIG"] = str(served / "sidekey.toml")
    with tempfile.TemporaryDirectory(prefix="docs-") as name:
        directory = Path(name)
        # A program under `sidekey run` has a user of its own, and begins here.
        directory.chmod(0o755)
        for program in (program for program in CALLED if "/" in program):
            (directory / program).parent.mkdir()
            shutil.copy2(place.programs / Path(program).name, directory / program)
        yield directory
    del place.variables["SIDEKEY_CONFIG"]


@pytest.fixture(scope="module")
def served(place: Place) -> Iterator[Path]:
    """The directory of a Sidekey that serves. alice has connected everything."""
    made = json.loads(place.run("sidekey api-keys generate --json", place.directory).stdout)
    with tempfile.TemporaryDirectory(prefix="sidekey-") as name:
        directory = Path(name)
        # A program under `sidekey run` has a user of its own, and begins here.
        directory.chmod(0o755)
        sidekey = Sidekey(
            directory,
            Addresses(8700, 8701, 9464),
            [registration(place, provider) for provider in PROVIDERS],
            tables={
                "issuer": {"identity": "notion"},
                "servers.notion": {"upstream": "http://127.0.0.1:3000/mcp", "providers": ["notion"]},
                "api": {"return_to": ["https://app.example.com/integrations"]},
                "api.keys.partner": {"hash": made["hash"]},
            },
            launcher=[str(word) for word in with_files(place.files, [])],
        )
        sidekey.environment["SSL_CERT_FILE"] = str(place.directory / "companies.pem")
        place.variables = {name: value for name, value in sidekey.environment.items() if name.endswith("_SECRET")}
        # What a partner's shell has set.
        place.variables |= {"SIDEKEY": "http://127.0.0.1:8700", "KEY": made["key"]}
        with place.namespace.inside():
            sidekey.start()
        connects = [f"sidekey connect {provider} --subject alice" for provider in PROVIDERS]
        # The customer of a partner.
        connects.append("sidekey connect quickbooks --subject org-42")
        done = place.run("\n".join(connects), directory)
        assert done.returncode == 0, done.stderr
        new_grant(place, directory)
        place.variables["HANDLE"] = place.run("sidekey handle issue --subject alice", directory).stdout.strip()
        yield directory
        sidekey.close()
        with place.namespace.inside():
            assert sidekey.stop() == 0, sidekey.program.output()


def registration(place: Place, provider: str) -> Registration:
    with place.namespace.inside():
        client_id, client_secret = place.simulator.client_id(provider), place.simulator.client_secret(provider)
    return Registration(provider, client_id, client_secret, environment="sandbox" if provider == "quickbooks" else None)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.place)
def test_a_block_works(request: pytest.FixtureRequest, script: Script) -> None:
    if "sidekey init" in script.text:
        # A quick start begins with nothing.
        place, where = request.getfixturevalue("empty_place"), request.getfixturevalue("empty_directory")
        stdin = place_secret(place, script.text)
    else:
        place, where, stdin = request.getfixturevalue("place"), request.getfixturevalue("workbench"), ""
    text = re.sub(
        r"^sidekey serve &.*$",
        "sidekey serve & until curl -sf http://127.0.0.1:9464/readyz; do sleep 0.1; done",
        script.text,
        flags=re.MULTILINE,
    )
    done = place.run(filled_in(place, where, text), where, stdin)
    assert done.returncode == 0, explained(script.place, script.text, done)
    assert "urn:sidekey:error:" not in re.sub("HTTP/1.1 401 .*?token-required", "", done.stdout, flags=re.DOTALL), (
        done.stdout
    )
    assert_shape(script, done.stdout)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.place)
def test_a_snippet_of_the_configuration_is_valid(snippet: Script, tmp_path: Path) -> None:
    """Each goes into what `sidekey init` writes, and some need what others show."""
    subprocess.run([binary(), "init", tmp_path], check=True, capture_output=True)
    for secret in re.findall('"file:([^"]+)"', snippet.text):
        (tmp_path / secret).touch(mode=0o600)
        (tmp_path / secret).write_text("a secret")
    config = tmp_path / "sidekey.toml"
    config.write_text(f"{snippet.text}\n{config.read_text()}")
    done = subprocess.run([binary(), "check", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{snippet.place}: {done.stderr}"


@pytest.mark.parametrize("mention", MENTIONS.values(), ids=lambda mention: f"{mention.place} {mention.text}")
def test_a_mentioned_command_works(place: Place, served: Path, mention: Mention) -> None:
    if mention.text in NOT_RUN:
        return
    if mention.text.startswith("make "):
        assert mention.text.split()[1] in TARGETS, f"{mention.place}: say in TARGETS what runs `{mention.text}`"
    for command in spelled_out(mention.text):
        # What it does by itself is seen where it is used.
        command = f"{command} --help" if is_name(command) else command
        typed = filled_in(place, served, command)
        done = place.run(typed, served)
        assert done.returncode == 0, explained(mention.place, command, done)
        for pattern, mending in AFTERWARDS.items():
            if re.fullmatch(pattern, typed):
                mended = place.run(re.sub(pattern, mending, typed), served)
                assert mended.returncode == 0, mended.stderr


def test_no_exception_outlives_its_command() -> None:
    assert set(NOT_RUN) <= set(MENTIONS), "a command in NOT_RUN stands in no document any more"
    named = {text.split()[1] for text in MENTIONS if text.startswith("make ")}
    scripts = {target for script in SCRIPTS for target in re.findall(r"\bmake ([a-z]+)", script.text)}
    assert set(TARGETS) == named | scripts, "TARGETS are those that the documents name"
    everything = "".join(document.read_text() for document in [*FOUND, *(ROOT / "config/recipes").iterdir()])
    for word in [*STAND_INS, *CALLED]:
        assert word in everything, f"{word} stands in no document any more"


def explained(where: str, command: str, done: subprocess.CompletedProcess[str]) -> str:
    return (
        f"{where}: `{command}` ended with {done.returncode}.\n{done.stdout}{done.stderr}\n"
        "Mend the document; or, where it leaves something to the reader, say in e2e/test_docs_commands.py what stands "
        "for it (STAND_INS), which other program is only called (CALLED), or why the command is not run (NOT_RUN)."
    )


def place_secret(place: Place, script: str) -> str:
    """What a reader pastes into the file of the provider's secret."""
    with place.namespace.inside():
        return place.simulator.client_secret(provider_of(script))


def provider_of(script: str) -> str:
    [provider] = re.findall(r"^\[providers\.([a-z-]+)\]$", script, re.MULTILINE)
    return str(provider)


def filled_in(place: Place, directory: Path, text: str) -> str:
    for word, stand_in in STAND_INS.items():
        text = text.replace(word, stand_in)
    if "@CLIENT_ID@" in text:
        with place.namespace.inside():
            text = text.replace("@CLIENT_ID@", place.simulator.client_id(provider_of(text)))
    if "@HANDLE_ID@" in text:
        issued = place.run("sidekey handle issue --subject alice --json", directory)
        text = text.replace("@HANDLE_ID@", json.loads(issued.stdout)["id"])
    if "@GRANT_ID@" in text:
        text = text.replace("@GRANT_ID@", new_grant(place, directory))
    return text


def new_grant(place: Place, directory: Path) -> str:
    """A client that alice has let in; returns the id of its grant."""
    redirect_uri = "http://127.0.0.1:9999/callback"
    with place.namespace.inside():
        with closing(BareClient("http://127.0.0.1:8700/notion/mcp", "Claude", redirect_uri)) as client:
            with Browser(place.simulator.person(VISITOR)) as browser:
                back = browser.authorize(client.authorize_url(), redirect_uri)
            client.exchange(re.findall("code=([^&]+)", back)[0])
    listed = place.run("sidekey grants list --json", directory)
    assert listed.returncode == 0, listed.stderr
    grants = json.loads(listed.stdout)["grants"]
    return str(next(grant["id"] for grant in grants if grant["state"] not in ("ended", "expired")))


def assert_shape(script: Script, output: str) -> None:
    """What the document shows of an answer is what comes: its columns, or its status."""
    if script.outputs:
        shown = {len(re.split(r"  +", line.strip())) for line in script.outputs}
        came = {len(re.split(r"  +", line.strip())) for line in output.splitlines() if line.strip()}
        assert came == shown, f"{script.place}: {script.outputs} is shown, and this came:\n{output}"
    expected = re.findall(r"^curl -i .*# (\d{3}),", script.text, re.MULTILINE)
    assert re.findall(r"HTTP/1.1 (\d{3})", output)[: len(expected)] == expected, output
