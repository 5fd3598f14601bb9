"""Ports that nobody uses."""

import random
import socket

# Below what operating systems give to outgoing connections, so that none of those takes a port between our look and
# the start of the program that will listen there.
CANDIDATES = range(15_000, 30_000)


def free_ports(count: int) -> list[int]:
    """So many different ports on 127.0.0.1."""
    found: list[int] = []
    for port in random.sample(CANDIDATES, len(CANDIDATES)):
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"there are no {count} free ports in {CANDIDATES}")


def is_free(port: int) -> bool:
    with socket.socket() as attempt:
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
