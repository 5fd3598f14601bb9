"""Tries the bundled recipes: each starts the real package from its registry, unmodified, under `sidekey run`, and the
official client calls a tool of it. The simulated provider must see that call with the subject's token.

Arguments are names of recipes; without any all are tried, and what came of it is written down: in
`recipes-record.toml`, and as `tested` in each recipe.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

from anyio.from_thread import start_blocking_portal
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from harness.leaks import assert_no_secrets
from harness.program import Program
from harness.sidekey import Addresses, Registration, Sidekey, binary
from harness.simulator import SIGN_IN_PAGES, Hosts, Simulator
from harness.stage import is_open
from harness.toml import Tables, toml

HERE = Path(__file__).parent
RECIPES = HERE.parent / "config" / "recipes"
RECORD = HERE / "recipes-record.toml"
# Servers run as a user of their own, who can open what everybody can.
CACHE = HERE / ".recipes" if is_open(HERE) else Path(tempfile.gettempdir()) / "sidekey-recipes"

SUBJECT, SOMEBODY_ELSE = "alice", "bob"
PROVIDERS = sorted(page.split("/")[1] for page in SIGN_IN_PAGES.values())
# Those that are enabled, where that is more than the default one.
APIS = {"google": ["calendar", "drive", "gmail", "docs", "sheets"], "slack": ["slack", "workspace"]}
# As the recipe `slack-korotovsky` says.
ENTRIES = {
    "providers/slack-workspace.toml": """
extends = "slack"
[apis.workspace]
origin = "https://simulated.slack.com"
paths = ["/api/"]
"""
}
SECONDS_TO_INSTALL, SECONDS_TO_ANSWER = 300, 60


@dataclass(frozen=True)
class Outcome:
    """What came of one recipe; `failure` is empty if all was as it should be."""

    recipe: str
    package: str
    version: str
    tools: int = 0
    call: str = ""
    failure: str = ""
    seconds: float = 0

    @property
    def result(self) -> str:
        return self.failure or "passed"

    def row(self) -> tuple[str, ...]:
        facts = (self.recipe, self.package, self.version, str(self.tools), self.call, self.result)
        return (*facts, f"{self.seconds:.1f}")


def main(names: list[str]) -> int:
    recipes = {path.stem: tomllib.loads(path.read_text()) for path in sorted(RECIPES.glob("*.toml"))}
    tries = tomllib.loads((HERE / "recipes.toml").read_text())
    unknown = set(names) - tries.keys()
    assert not unknown, f"nothing is to be tried with {', '.join(sorted(unknown))}"
    with tempfile.TemporaryDirectory(prefix="sidekey-") as directory, ExitStack() as stack:
        place = stack.enter_context(started(Path(directory)))
        outcomes = []
        for name in sorted(names or tries):
            outcome = tried(place, name, recipes[name], tries[name])
            print(f"{name}: {outcome.result}", flush=True)
            outcomes.append(outcome)
    untested = [
        Outcome(name, recipe["package"], recipe["version"], failure="untested")
        for name, recipe in recipes.items()
        if not names and name not in tries
    ]
    print(f"\n{table(outcomes + untested)}")
    if not names:
        write_down(recipes, outcomes)
    passed = sum(not outcome.failure for outcome in outcomes)
    print(f"\n{passed} passed, {len(outcomes) - passed} failed")
    return 0 if passed == len(outcomes) else 1


@dataclass(frozen=True)
class Place:
    """A Sidekey with all providers, at which two subjects are connected."""

    simulator: Simulator
    sidekey: Sidekey


@contextmanager
def started(directory: Path) -> Iterator[Place]:
    prepare_cache()
    ca = directory / "companies.pem"
    command = [os.environ["SIMULATOR_BIN"], "--hosts-listen", "127.0.0.1:0", "--hosts-ca", str(ca)]
    program = Program(command, directory / "simulator.log", os.environ)
    announced = program.announced()
    hosts = Hosts(announced["hosts"]["address"], ca, announced["hosts"]["names"])
    with closing(Simulator(announced["url"], hosts)) as simulator:
        (directory / "sidekey").mkdir(mode=0o700)
        registrations = [registration(simulator, provider) for provider in PROVIDERS]
        place, added = directory / "sidekey", tables(hosts)
        with closing(Sidekey(place, Addresses.free(), registrations, tables=added, files=ENTRIES)) as sidekey:
            sidekey.start()
            for subject in [SUBJECT, SOMEBODY_ELSE]:
                for provider in PROVIDERS:
                    sidekey.connect(provider, subject, simulator.person(subject))
            yield Place(simulator, sidekey)
            sidekey.stop()
    program.stop()


def prepare_cache() -> None:
    for name in ["npm", "uv", "bin"]:
        (CACHE / name).mkdir(parents=True, exist_ok=True)
    for name in ["uv", "uvx"]:
        shutil.copy(shutil.which(name) or name, CACHE / "bin" / name)


def registration(simulator: Simulator, provider: str) -> Registration:
    client_id, client_secret = simulator.client_id(provider), simulator.client_secret(provider)
    return Registration(provider, client_id, client_secret, apis=APIS.get(provider, []))


def tables(hosts: Hosts) -> Tables:
    return {
        "egress": {"extra_ca": str(hosts.ca)},
        "egress.resolve": dict.fromkeys(hosts.names, hosts.address),
        "providers.slack": {"entry": "slack-workspace"},
    }


def tried(place: Place, name: str, recipe: dict[str, Any], wanted: dict[str, Any]) -> Outcome:
    outcome = Outcome(name, recipe["package"], recipe["version"], call=f"{wanted['tool']}: {wanted['call']}")
    try:
        install(recipe)
        began = time.monotonic()
        tools = carried_out(place, name, recipe, wanted)
        return Outcome(**{**vars(outcome), "tools": tools, "seconds": time.monotonic() - began})
    except Exception as error:
        print(f"--- {name}: {innermost(error)}\n{log(name)}", file=sys.stderr, flush=True)
        why = " ".join(str(innermost(error)).split()) or type(error).__name__
        return Outcome(**{**vars(outcome), "failure": f"failed: {why[:100]}"})


def innermost(error: BaseException) -> BaseException:
    """What is in the groups that task groups make."""
    return innermost(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def install(recipe: dict[str, Any]) -> None:
    """Into the cache, so that what is measured is the server."""
    package, version = recipe["package"], recipe["version"]
    command: list[str] = recipe["command"]
    if recipe["registry"] == "npm":
        packages = after("--package", command) or [f"{package}@{version}"]
        command = ["npx", "-y", *(f"--package={package}" for package in packages), "--", "node", "-e", "0"]
    else:
        others = (f"--with={other}" for other in after("--with", command))
        command = ["uvx", "--from", f"{package}=={version}", *others, "python", "-c", "0"]
    environment = {**os.environ, **caches()}
    subprocess.run(command, env=environment, capture_output=True, check=True, timeout=SECONDS_TO_INSTALL)
    if os.getuid() == 0:
        subprocess.run(["chmod", "-R", "a+rwX", CACHE], check=True)


def after(option: str, command: list[str]) -> list[str]:
    """What stands behind an option that may come several times."""
    return [value for word, value in pairwise(command) if word == option]


def caches() -> dict[str, str]:
    # Servers run as a user that cannot enter the home of this one, and so not use what is installed there.
    python = "/usr/bin/python3"
    return {
        "PATH": f"{CACHE / 'bin'}:{os.environ['PATH']}",
        "npm_config_cache": str(CACHE / "npm"),
        "npm_config_prefer_offline": "true",
        "npm_config_update_notifier": "false",
        "UV_CACHE_DIR": str(CACHE / "uv"),
        "UV_PYTHON_DOWNLOADS": "never",
        **({"UV_PYTHON": python} if Path(python).exists() else {}),
    }


def carried_out(place: Place, name: str, recipe: dict[str, Any], wanted: dict[str, Any]) -> int:
    """Starts the server, calls the tool, and looks at what arrived. Returns how many tools there are."""
    provider = recipe["providers"][0]
    simulator = place.simulator
    before = len(simulator.calls(provider))
    with tempfile.TemporaryDirectory(prefix="sidekey-") as here:
        Path(here).chmod(0o755)
        arguments = ["run", "--config", str(place.sidekey.config), "--subject", SUBJECT, "--recipe", name, "--explain"]
        environment = {**place.sidekey.environment, **caches()}
        server = StdioServerParameters(command=binary(), args=arguments, env=environment, cwd=here)
        tools, answer = use(server, name, wanted)
    assert wanted["answer"] in answer, f"the answer has no {wanted['answer']!r}: {answer}"
    calls = simulator.calls(provider)[before:]
    assert_no_secrets(answer.encode(), simulator.secrets(), "the answer")
    arrived = [f"{call['method']} {call['path']}" for call in calls if call["accepted"] and call["user"] == SUBJECT]
    assert wanted["call"] in arrived, f"{wanted['call']} did not arrive with the subject's token: {calls}"
    others = [call for call in calls if call["user"] != SUBJECT]
    assert not others, f"calls without the subject's token: {others}"
    return tools


def use(server: StdioServerParameters, name: str, wanted: dict[str, Any]) -> tuple[int, str]:
    """How many tools there are, and what the one that is called answers."""
    with start_blocking_portal() as portal, log_file(name).open("w") as errors:
        client = Client(stdio_client(server, errlog=errors), read_timeout_seconds=SECONDS_TO_ANSWER)
        with portal.wrap_async_context_manager(client) as client:
            tools = portal.call(client.list_tools).tools
            result = portal.call(client.call_tool, wanted["tool"], wanted["arguments"])
    return len(tools), "\n".join(getattr(content, "text", "") for content in result.content)


def log_file(name: str) -> Path:
    return CACHE / f"{name}.log"


def log(name: str) -> str:
    """The end of what the server wrote."""
    return log_file(name).read_text(errors="replace")[-4000:] if log_file(name).exists() else ""


def table(outcomes: list[Outcome]) -> str:
    heads = ("recipe", "package", "version", "tools", "call", "result", "seconds")
    rows = [heads, *(outcome.row() for outcome in outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def write_down(recipes: dict[str, dict[str, Any]], outcomes: list[Outcome]) -> None:
    passed = {outcome.recipe: outcome for outcome in outcomes if not outcome.failure}
    record = {
        name: {"version": outcome.version, "tools": outcome.tools, "call": outcome.call, "tried_on": str(date.today())}
        for name, outcome in passed.items()
    }
    RECORD.write_text(f"# What `make recipes` has seen working; it writes this file.\n\n{toml(record)}")
    for name in recipes:
        path = RECIPES / f"{name}.toml"
        mark = f"tested = {'true' if name in passed else 'false'}"
        path.write_text(re.sub(r"^tested = \w+$", mark, path.read_text(), count=1, flags=re.MULTILINE))


sys.exit(main(sys.argv[1:]))
