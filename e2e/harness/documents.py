"""The commands that documents tell a reader to type."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SHELLS = ("sh", "bash", "console")
PROGRAMS = ("sidekey", "make", "curl")


@dataclass(frozen=True)
class Script:
    """What stands in a block, to be typed. `outputs` has what the document shows below a line that begins with `$`."""

    place: str
    text: str
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mention:
    """A command within a sentence or a table."""

    place: str
    text: str


def is_name(command: str) -> bool:
    """Whether it only names a command and says nothing about how it is used: `sidekey handle revoke`."""
    return re.fullmatch("sidekey( [a-z][a-z-]*)+", command) is not None


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]


def commands_in(document: Path) -> tuple[list[Script], list[Mention]]:
    """All that may be typed, in the order in which it stands there."""
    scripts: list[Script] = []
    mentions: list[Mention] = []
    name = document.relative_to(ROOT)
    for number, language, lines in blocks(document.read_text()):
        place = f"{name}:{number}"
        if language is None:
            mentions += [Mention(place, command) for command in inline_commands(lines[0])]
        elif any(line.startswith("$ ") for line in lines):
            scripts += sessions(place, lines)
        elif language in SHELLS:
            text = "\n".join(lines)
            # Whoever reads it sees what begins with one of ours; blocks about other programs are theirs.
            if re.search(rf"(^|[\s(|&])({'|'.join(PROGRAMS)}) ", text):
                scripts.append(Script(place, text))
    return scripts, mentions


def snippets_in(document: Path) -> list[Script]:
    """The blocks of TOML."""
    name = document.relative_to(ROOT)
    found = blocks(document.read_text())
    return [Script(f"{name}:{number}", "\n".join(lines)) for number, language, lines in found if language == "toml"]


def blocks(text: str) -> Iterator[tuple[int, str | None, list[str]]]:
    """Fenced blocks with their language, and each line outside of them with None."""
    language: str | None = None
    begun, inside = 0, [""]
    for number, line in enumerate(text.splitlines(), 1):
        fence = re.match(r"\s*```(\w*)", line)
        if fence and language is None:
            language, begun, inside = fence[1], number + 1, []
        elif fence and language is not None:
            yield begun, language, inside
            language = None
        elif language is None:
            yield number, None, [line]
        else:
            inside.append(line)


def inline_commands(line: str) -> list[str]:
    """What stands between backquotes and begins with one of the programs."""
    spans = (span.replace(r"\|", "|") for span in re.findall("`([^`]+)`", line))
    return [span for span in spans if span.split()[0] in PROGRAMS and " " in span]


def sessions(place: str, lines: list[str]) -> list[Script]:
    """Each command after a `$`, with what is shown below it."""
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    ends = [*starts[1:], len(lines)]
    return [
        Script(place, lines[start][2:], tuple(line for line in lines[start + 1 : end] if line.strip()))
        for start, end in zip(starts, ends, strict=True)
    ]


def spelled_out(synopsis: str) -> list[str]:
    """The commands that a synopsis stands for, with all that may be left out.

    `a [--b C]... x|y` is `a --b C x` and `a --b C y`.
    """
    without_brackets = re.sub(r"\[(.+?)\](\.\.\.)?", r"\1", synopsis)
    choice = re.search(r"(?<!\S)\S+\|\S+(?!\S)", without_brackets)
    if choice is None:
        return [without_brackets]
    picked = [
        without_brackets[: choice.start()] + word + without_brackets[choice.end() :] for word in choice[0].split("|")
    ]
    return [command for one in picked for command in spelled_out(one)]
