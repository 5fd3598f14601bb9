"""Networks of a test's own: namespaces, joined by a cable."""

import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNET = 0x4000_0000

_LIBC = ctypes.CDLL(None, use_errno=True)
_NUMBERS = itertools.count()


class Namespace:
    """One network namespace, with a loopback interface that is up and nothing else."""

    def __init__(self) -> None:
        self.name = f"sidekey-{os.getpid()}-{next(_NUMBERS)}"
        ip("netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def close(self) -> None:
        ip("netns", "del", self.name)

    def ip(self, *arguments: str) -> None:
        ip("-netns", self.name, *arguments)

    def add_addresses(self, interface: str, *addresses: str) -> None:
        for address in addresses:
            # No waiting until nobody else claims an IPv6 address.
            self.ip("address", "add", address, "dev", interface, *(["nodad"] if ":" in address else []))
        self.ip("link", "set", interface, "up")

    def set(self, sysctl: str, value: str) -> None:
        with self.inside():
            Path("/proc/sys", *sysctl.split(".")).write_text(value)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What this thread opens or starts meanwhile is in this network."""
        with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{self.name}") as wanted:
            _enter(wanted.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())


def cable(one: Namespace, other: Namespace) -> None:
    """Joins two namespaces; both ends are called `eth0`."""
    ip("link", "add", "eth0", "netns", one.name, "type", "veth", "peer", "name", "eth0", "netns", other.name)


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


def with_files(files: dict[str, Path], command: list[str | Path]) -> list[str | Path]:
    """The command, in a view of the file system in which other files stand at these places."""
    binds = " && ".join(f'mount --bind "{source}" "{place}"' for place, source in files.items())
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{binds} && exec "$@"', "sh", *command]


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
