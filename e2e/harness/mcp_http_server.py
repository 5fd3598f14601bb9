"""An unmodified MCP server from npm that serves many users over HTTP."""

import os
import tempfile
from pathlib import Path
from typing import Self

from harness.mcp_server import COMMANDS
from harness.polling import wait_until
from harness.program import Program


class McpHttpServer:
    """One server process, which listens at `url` once it says `announcement`."""

    def __init__(self, url: str, command: list[str], environment: dict[str, str], announcement: str):
        self.url = url
        self.command: list[str | Path] = [COMMANDS / command[0], *command[1:]]
        # Nothing else of our own environment reaches it.
        self.environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment}
        self.announcement = announcement

    def __enter__(self) -> Self:
        self.directory = tempfile.TemporaryDirectory()
        self.program = Program(self.command, Path(self.directory.name) / "server.log", self.environment)
        wait_until(self._listens, f"{self.program.name} listens")
        return self

    def __exit__(self, *_: object) -> None:
        self.program.stop()
        print(self.program.output())
        self.directory.cleanup()

    def output(self) -> str:
        """Everything it wrote so far."""
        return self.program.output()

    def _listens(self) -> bool:
        self.program.assert_running()
        return self.announcement in self.output()
