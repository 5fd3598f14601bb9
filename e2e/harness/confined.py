"""An unmodified MCP server under `sidekey run`, and all that it and the programs that it started got to see."""

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Self

from harness.mcp_server import McpServer
from harness.sidekey import Sidekey, handle_in
from harness.stage import Stage


class ConfinedServer(McpServer):
    """For alice, with all variables that Sidekey itself has. What it says on standard error goes to `log`."""

    # It may have to be installed first.
    patience_seconds = 60

    def __init__(
        self,
        sidekey: Sidekey,
        stage: Stage,
        log: Path,
        *options: str,
        command: Sequence[str | Path] = (),
        variables: dict[str, str] | None = None,
    ):
        self.log = log
        # Of its own also where it has no user of its own, for what it writes there is searched.
        home = log.parent / "home"
        home.mkdir()
        environment = {**sidekey.environment, **stage.environment, "HOME": str(home), **(variables or {})}
        run = sidekey.run_command("--subject", "alice", *options, command=command)
        super().__init__("/bin/sh", environment, ["-c", 'exec "$@" 2>"$0"', str(log), *run], stage.directory)

    def __enter__(self) -> Self:
        try:
            return super().__enter__()
        except BaseException as error:
            error.add_note(f"on standard error: {self.log.read_text()}")
            raise

    def handle(self) -> str:
        """What it has in the place of a token."""
        return handle_in(environment_of(self.processes()[0]))

    def processes(self) -> list[int]:
        """The program, and those that it started."""
        [run] = [process for process in children(os.getpid()) if b"\0run\0--config\0" in command_line(process)]
        return list(descendants(run))

    def where(self, needles: Iterable[str]) -> dict[str, set[str]]:
        """Where it got to see them: `environment`, `arguments`, `memory`, `files`, `answers`, `errors`."""
        wanted = {needle: [needle.encode(), needle.encode("utf-16-le")] for needle in needles}
        found: dict[str, set[str]] = {needle: set() for needle in wanted}
        for place, text in self._everything():
            for needle, spellings in wanted.items():
                if any(spelling in text for spelling in spellings):
                    found[needle].add(place)
        return found

    def _everything(self) -> Iterator[tuple[str, bytes]]:
        for process in self.processes():
            yield "environment", Path(f"/proc/{process}/environ").read_bytes()
            yield "arguments", command_line(process)
            # Nobody else may look.
            if os.geteuid() == 0:
                yield from (("memory", piece) for piece in memory(process))
        environment = environment_of(self.processes()[0])
        for name in ("HOME", "TMPDIR"):
            files = Path(environment[name]).rglob("*") if name in environment else []
            yield from (("files", file.read_bytes()) for file in files if file.is_file() and not file.is_symlink())
        yield "answers", "\n".join(self.answers).encode()
        yield "errors", self.log.read_bytes()


def environment_of(process: int) -> dict[str, str]:
    entries = Path(f"/proc/{process}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def command_line(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


def children(process: int) -> list[int]:
    threads = Path(f"/proc/{process}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


def descendants(process: int) -> Iterator[int]:
    for child in children(process):
        yield child
        yield from descendants(child)


def memory(process: int) -> Iterator[bytes]:
    """All that the process has in memory of its own, in pieces."""
    with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            addresses, permissions, *_ = line.split()
            if not permissions.startswith("rw"):
                continue
            start, end = (int(address, 16) for address in addresses.split("-"))
            for first, length in used(process, start, end):
                memory.seek(first)
                try:
                    yield memory.read(length)
                except OSError:
                    continue  # gone meanwhile


def used(process: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where in this range there is memory, as addresses and lengths: most of what is mapped never is used."""
    page = os.sysconf("SC_PAGE_SIZE")
    with open(f"/proc/{process}/pagemap", "rb") as pagemap:
        pagemap.seek(start // page * 8)
        entries = array("Q", pagemap.read((end - start) // page * 8))
    # In memory, or swapped out.
    numbers = (number for number, entry in enumerate(entries) if entry >> 62)
    # Pages that follow each other: what lies across two of them is found too.
    for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        pages = [number for _, number in run]
        yield start + pages[0] * page, len(pages) * page
