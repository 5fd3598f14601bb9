"""The root file system that the Dockerfile describes, without Docker.

Its last stage is read: what it copies comes from the build at hand, and what its base image has (the C library, root
certificates) comes from this machine. What a container gets besides is what every runtime gives it: `/dev`, `/proc`,
and mounts.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.sidekey import binary

DOCKERFILE = Path(__file__).parent.parent.parent / "Dockerfile"

# What comes with the base image, and where this machine has it.
BASES = {"gcr.io/distroless/cc-debian12:nonroot": ["/etc/ssl/certs/ca-certificates.crt"]}

# Empty directories of the base image.
DIRECTORIES = ["dev", "etc", "proc", "run", "sys", "tmp", "var/lib", "home/nonroot"]


@dataclass(frozen=True)
class Image:
    """A root file system, and what is started in it."""

    root: Path
    entrypoint: list[str]
    command: list[str]
    user: str
    environment: dict[str, str] = field(default_factory=dict)

    def make_places(self, mounts: Mapping[str, Path]) -> None:
        """Makes what something is to be mounted on, as a runtime does before it makes the root read-only."""
        for place, source in mounts.items():
            path = self.root / place.lstrip("/")
            if source.is_dir():
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()


def sidekey_image(root: Path) -> Image:
    """What the last stage of the Dockerfile makes, in the directory `root`."""
    base, instructions = last_stage(DOCKERFILE.read_text())
    for directory in DIRECTORIES:
        (root / directory).mkdir(parents=True)
    for file in BASES[base]:
        copy(Path(file), root / file.lstrip("/"))
    facts: dict[str, list[str]] = {"ENTRYPOINT": [], "CMD": [], "USER": []}
    environment: dict[str, str] = {}
    for instruction, rest in instructions:
        words = shlex.split(rest)
        if instruction == "COPY":
            *options, source, place = words
            assert options[0] == "--from=build", f"COPY {rest}: say here what this is"
            copy_built(source, root / place.lstrip("/"), root)
            for owner in (option.removeprefix("--chown=") for option in options[1:]):
                os.chown(root / place.lstrip("/"), *map(int, owner.split(":")))
        elif instruction == "ENV":
            environment.update([rest.split("=", 1)])
        elif instruction in ("ENTRYPOINT", "CMD"):
            facts[instruction] = [word.strip('"') for word in rest.strip("[]").split(", ")]
        elif instruction == "USER":
            facts["USER"] = words
        else:
            assert instruction in ("EXPOSE", "STOPSIGNAL"), f"{instruction} {rest}: say here what this does"
    [image_user] = facts["USER"]
    return Image(root, facts["ENTRYPOINT"], facts["CMD"], image_user, environment)


def copy_built(source: str, place: Path, root: Path) -> None:
    """What the first stage has built: a program, with what it is linked with, or an empty directory."""
    if source == "/build/target/state":
        place.mkdir(parents=True)
        return
    built = re.fullmatch("/build/target/release/([a-z]+)", source)
    assert built, f"{source}: say here what this is"
    program = Path(binary()).with_name(built[1])
    copy(program, place)
    for library in libraries(program):
        copy(library, root / str(library).lstrip("/"))


def last_stage(dockerfile: str) -> tuple[str, list[tuple[str, str]]]:
    """The base of the last stage, and its instructions."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.startswith("#")]
    [*_, start] = [number for number, line in enumerate(lines) if line.startswith("FROM ")]
    instructions = [line.split(maxsplit=1) for line in lines[start + 1 :]]
    return lines[start].split()[1], [(name, rest) for name, rest in instructions]


def libraries(program: Path) -> list[Path]:
    """What the program is linked with; all of it must be in the base image."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    found = [Path(path) for path in re.findall(r"(/\S+) \(0x", listed)]
    in_base = {"libc.so.6", "libgcc_s.so.1", "libm.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
    assert {path.name for path in found} <= in_base, f"{found}: distroless/cc has only {in_base}"
    return found


def copy(source: Path, place: Path) -> None:
    """As a hard link where that is possible: the programs are large, and nobody writes to them."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), place)
    except OSError:
        shutil.copy2(source, place)
