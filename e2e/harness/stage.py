"""Node.js and packages from npm, where any user can run them.

As root, `sidekey run` gives each program a user of its own, who can open only what is open to everybody. What is below this
directory may not be, such as in root's home.
"""

import os
import shutil
from pathlib import Path

from harness.client_program import E2E


class Stage:
    """Copies into `directory` what is not open to everybody."""

    def __init__(self, directory: Path):
        self.directory = directory
        directory.chmod(0o755)
        self.packages = self.open(E2E / "unmodified")
        # How `node` and `npx` are found.
        self.environment = {"PATH": f"{self._programs()}:{os.environ['PATH']}"}

    def writable(self, name: str) -> Path:
        """A new, empty directory in which everybody may write."""
        path = self.directory / name
        path.mkdir()
        path.chmod(0o777)
        return path

    def open(self, path: Path) -> Path:
        """The same, where everybody can open it."""
        if is_open(path):
            return path
        copy = self.directory / path.name
        if path.is_dir():
            return Path(shutil.copytree(path, copy, symlinks=True, dirs_exist_ok=True))
        return Path(shutil.copy2(path, copy))

    def _programs(self) -> Path:
        node, npx = shutil.which("node"), shutil.which("npx")
        assert node and npx
        if is_open(Path(node)) and is_open(Path(npx)):
            return Path(node).parent
        # The one that `run` installs from PyPI.
        package = self.open(Path(node).resolve().parent.parent)
        programs = self.directory / "programs"
        programs.mkdir()
        (programs / "node").symlink_to(package / "bin/node")
        script = programs / "npx"
        script.write_text(f'#!/bin/sh\nexec node "{package}/lib/node_modules/npm/bin/npx-cli.js" "$@"\n')
        script.chmod(0o755)
        return programs


def is_open(path: Path) -> bool:
    """Whether everybody can read it and go through all that is above it."""
    real = path.resolve()
    return bool(real.stat().st_mode & 0o004) and all(parent.stat().st_mode & 0o001 for parent in real.parents)
