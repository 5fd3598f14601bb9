"""HTTP on this machine."""

from typing import Any

import httpx2


def client(**options: Any) -> httpx2.Client:
    """A client that follows nothing by itself and takes no proxy from the environment."""
    return httpx2.Client(trust_env=False, timeout=20, **options)
