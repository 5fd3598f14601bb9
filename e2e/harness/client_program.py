"""Official clients that run as programs of their own: `clients/`.

A program gets its setup as one argument, and then lines of JSON: `{"id": 1, "what": "connect"}`, also `disconnect`,
`tools`, `call` (with `tool` and `arguments`), `state`, `expire`. It answers each with `{"id": 1, "result": ...}` or
`{"id": 1, "error": "..."}`, in any order. When its user must visit an address it says `{"visit": "..."}`, and is told
`{"callback": "..."}`: the address at its redirect URI to which the user was led.
"""

import json
import os
import subprocess
import threading
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any

from harness.sdk_client import Setup, json_of

E2E = Path(__file__).parent.parent

SECONDS_AT_MOST = 60


def python_v1(setup: Setup) -> "ClientProgram":
    """`mcp` 1.x from PyPI."""
    return ClientProgram([E2E / ".venv-v1/bin/python", E2E / "clients/python_v1.py"], setup)


def typescript_v1(setup: Setup) -> "ClientProgram":
    """`@modelcontextprotocol/sdk` from npm."""
    return ClientProgram(["node", E2E / "clients/typescript.mjs"], setup, sdk=1)


def typescript_v2(setup: Setup) -> "ClientProgram":
    """`@modelcontextprotocol/client` from npm."""
    return ClientProgram(["node", E2E / "clients/typescript.mjs"], setup, sdk=2)


class ClientProgram:
    """One running program."""

    def __init__(self, command: list[str | Path], setup: Setup, **more: Any) -> None:
        self.setup = setup
        identity = setup.identity
        options = {
            "server_url": setup.server_url,
            "redirect_uri": setup.redirect_uri,
            "client_name": identity.name,
            "document_url": identity.document_url,
            "client_id": identity.client_id,
            "client_secret": identity.client_secret,
            **more,
        }
        self.process = subprocess.Popen(
            [*command, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        )
        self.ids = count(1)
        self.lock = threading.Lock()
        self.waiting: dict[int, Future[Any]] = {}
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def connect(self) -> None:
        self._order("connect")

    def disconnect(self) -> None:
        self._order("disconnect")

    def tools(self) -> set[str]:
        return set(self._order("tools"))

    def call(self, tool: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        return json_of(self._order("call", tool=tool, arguments=arguments or {}))

    def registration(self) -> dict[str, Any]:
        return dict(self._order("state")["registration"])

    def tokens(self) -> dict[str, Any]:
        return dict(self._order("state")["tokens"] or {})

    def expire(self) -> None:
        self._order("expire")

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join()
        self.process.stdout.close()

    def _order(self, what: str, **more: Any) -> Any:
        id, answer = next(self.ids), Future[Any]()
        self.waiting[id] = answer
        self._write({"id": id, "what": what, **more})
        return answer.result(timeout=SECONDS_AT_MOST)

    def _write(self, message: dict[str, Any]) -> None:
        assert self.process.stdin
        with self.lock:
            self.process.stdin.write(f"{json.dumps(message)}\n")
            self.process.stdin.flush()

    def _read(self) -> None:
        """Ends when the program ends; whoever still waits then learns why."""
        assert self.process.stdout
        problem: Exception | None = None
        try:
            for line in self.process.stdout:
                self._take(json.loads(line))
        except Exception as error:
            problem = error
        for answer in self.waiting.values():
            answer.set_exception(problem or AssertionError("the client program has ended"))

    def _take(self, message: dict[str, Any]) -> None:
        if "visit" in message:
            self._write({"callback": self.setup.visit(message["visit"])})
            return
        answer = self.waiting.pop(message["id"])
        if "error" in message:
            answer.set_exception(AssertionError(message["error"]))
        else:
            answer.set_result(message["result"])
