"""Waiting for something without guessing how long it takes."""

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

PAUSE_SECONDS = 0.05


def wait_until(look: Callable[[], Result | None], what: str, at_most_seconds: float = 15) -> Result:
    """Looks again and again until there is something to see, and returns it."""
    deadline = time.monotonic() + at_most_seconds
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {at_most_seconds} s in vain: {what}")
        time.sleep(PAUSE_SECONDS)
    return seen
