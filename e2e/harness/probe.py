"""HTTP clients in many languages, as programs of their own: `probes/`, `unmodified/axios.mjs`.

A probe is given requests as arguments, `URL` or `URL HOST` (what to say in the header `Host` instead). It asks for each with
the variable TOKEN as its bearer token, and prints a line of JSON for each: `{"status": 200, "text": "..."}`, or
`{"error": "..."}` where there was no answer.
"""

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

E2E = Path(__file__).parent.parent


@dataclass(frozen=True)
class Answer:
    """What came of a request."""

    status: int | None = None
    text: str = ""
    error: str = ""

    def json(self) -> Any:
        return json.loads(self.text)

    def assert_refused(self, status: int, word: str) -> None:
        """It is Sidekey's refusal, as `docs/errors.md` has it."""
        assert self.status == status, self
        assert self.json()["type"] == f"urn:sidekey:error:{word}", self


class Probe:
    """One client."""

    def __init__(self, *command: str | Path):
        self.command = command

    def under(self, starter: Sequence[str | Path], place: Callable[[Path], Path]) -> Self:
        """The same, started by another program, with its own files where `place` says."""
        own = [place(word) if isinstance(word, Path) else word for word in self.command]
        return type(self)(*starter, *own)

    def ask(self, environment: Mapping[str, str], *requests: str) -> list[Answer]:
        lines = output([*self.command, *requests], environment).splitlines()
        assert len(lines) == len(requests), lines
        return [Answer(**json.loads(line)) for line in lines]


class Curl(Probe):
    """The program itself, started for each request."""

    def ask(self, environment: Mapping[str, str], *requests: str) -> list[Answer]:
        return [self._ask_one(environment, request) for request in requests]

    def _ask_one(self, environment: Mapping[str, str], request: str) -> Answer:
        url, _, host = request.partition(" ")
        command = [*self.command, *(["--header", f"host: {host}"] if host else []), url]
        done = run(command, environment)
        if done.returncode != 0:
            return Answer(error=done.stderr)
        text, _, status = done.stdout.rpartition("\n")
        return Answer(int(status), text)


def output(command: Sequence[str | Path], environment: Mapping[str, str]) -> str:
    done = run(command, environment)
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def run(command: Sequence[str | Path], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    # In a directory that everybody may enter.
    return subprocess.run(
        command, env=dict(environment), cwd="/", capture_output=True, check=False, text=True, timeout=60
    )


CURL = Curl("sh", E2E / "probes/curl.sh")
REQUESTS = Probe(E2E / ".venv-clients/bin/python", E2E / "probes/requests_probe.py")
HTTPX = Probe(E2E / ".venv-clients/bin/python", E2E / "probes/httpx_probe.py")
FETCH = Probe("node", E2E / "probes/fetch.mjs")
AXIOS = Probe("node", E2E / "unmodified/axios.mjs")
GO = Probe(E2E / ".built/probe")
# Java leaves it to its user whether a program may say another host.
JAVA = Probe("java", "-Djdk.httpclient.allowRestrictedHeaders=host", "-cp", E2E / ".built/java", "Probe")
