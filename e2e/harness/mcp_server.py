"""An unmodified MCP server from npm, driven by the official client."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from anyio.from_thread import start_blocking_portal
from mcp import Client, StdioServerParameters
from mcp.client.stdio import get_default_environment
from mcp.types import TextContent

COMMANDS = Path(__file__).parent.parent / "node_modules" / ".bin"


class McpServer:
    """One server process that speaks MCP over stdin and stdout. `command` is in `node_modules`, or has a path of its own."""

    # For an answer.
    patience_seconds = 20

    def __init__(
        self,
        command: str,
        environment: dict[str, str],
        arguments: Sequence[str] = (),
        directory: Path | None = None,
    ):
        # Nothing else of our own environment reaches it.
        self.environment = {**get_default_environment(), **environment}
        self.parameters = StdioServerParameters(
            command=str(COMMANDS / command), args=list(arguments), env=environment, cwd=directory
        )
        # Every answer it gave, as text.
        self.answers: list[str] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.portal = stack.enter_context(start_blocking_portal())
            client = Client(self.parameters, read_timeout_seconds=self.patience_seconds)
            self.client = stack.enter_context(self.portal.wrap_async_context_manager(client))
            self.open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        # A failed assertion is no business of the client, which would wrap it beyond recognition.
        self.open.close()

    def tools(self) -> set[str]:
        return {tool.name for tool in self.portal.call(self.client.list_tools).tools}

    def call(self, tool: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        """Calls a tool whose answer is a JSON object."""
        result = self.portal.call(self.client.call_tool, tool, arguments or {})
        [content] = result.content
        assert isinstance(content, TextContent)
        self.answers.append(content.text)
        assert not result.is_error, content.text
        answer: dict[str, Any] = json.loads(content.text)
        return answer
