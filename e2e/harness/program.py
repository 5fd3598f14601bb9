"""A program that runs beside the tests, with its output in a file."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.polling import wait_until


class Program:
    """Starts at once; `stop` ends it as an operator would."""

    def __init__(self, command: Sequence[str | Path], log: Path, environment: Mapping[str, str]):
        self.name = Path(command[0]).name
        self.log = log
        # What it wrote before a restart stays.
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=dict(environment)
            )

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def assert_running(self) -> None:
        exit_code = self.process.poll()
        assert exit_code is None, f"{self.name} ended with {exit_code}:\n{self.output()}"

    def announced_url(self) -> str:
        """The URL of a program that prints `{"url": ...}` once it listens."""
        return str(self.announced()["url"])

    def announced(self) -> dict[str, Any]:
        """All that it prints then."""

        def announcement() -> str | None:
            self.assert_running()
            lines = self.output().splitlines(keepends=True)
            return next((line for line in lines if line.startswith('{"url"') and line.endswith("\n")), None)

        announced: dict[str, Any] = json.loads(wait_until(announcement, f"{self.name} announces its URL"))
        return announced

    def stop(self) -> int:
        """Ends it with SIGTERM and returns its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.name} does not heed SIGTERM:\n{self.output()}") from None
