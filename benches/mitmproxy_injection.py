"""An add-on for mitmproxy that does what Sidekey does to a request, and no more: the token in the place of the handle."""

import json
import os
from pathlib import Path

from mitmproxy import http
from mitmproxy.proxy.server_hooks import ServerConnectionHookData


class Injection:
    """Tokens by handle, and the address where the provider's host is."""

    def __init__(self, tokens: dict[str, str], upstream_port: int):
        self.tokens = tokens
        self.upstream = ("127.0.0.1", upstream_port)

    def server_connect(self, data: ServerConnectionHookData) -> None:
        data.server.address = self.upstream

    def request(self, flow: http.HTTPFlow) -> None:
        handle = flow.request.headers.get("authorization", "").removeprefix("Bearer ")
        token = self.tokens.get(handle)
        if token is None:
            flow.response = http.Response.make(401)
            return
        flow.request.headers["authorization"] = f"Bearer {token}"


addons = [Injection(**json.loads(Path(os.environ["INJECTION"]).read_text()))]
