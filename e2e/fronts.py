"""Sidekey's configuration as the front of an MCP server, and clients that the operator knows beforehand."""

import json

from harness.sdk_client import Identity
from harness.toml import Tables
from harness.user import REDIRECT_URI
from servers import NOTION_HANDLE

# The name of the client is what the user sees.
STATIC = Identity(
    client_id="reporting", client_secret="reporting-secret_for-the-end-to-end-tests", name="Reporting of this test"
)
STATIC_CLIENT = {
    "name": STATIC.name,
    "redirect_uris": [REDIRECT_URI],
    # argon2id of the secret above.
    "secret_hash": "$argon2id$v=19$m=19456,t=2,p=1$mXxyRr+/8ze/YXRwe3BpWA$Xw4ZnL7Q8Mf5XU9Zl0IwmK0wYLeTRTJq1KTmr+nuqoo",
}

DOCUMENT = Identity(document_url="https://client.example/oauth/client.json", name="Documented client of this test")
# A copy kept by the operator: no test reaches client.example. Without a port, as published documents have it.
DOCUMENT_FILES = {
    "client-documents/example.json": json.dumps(
        {
            "client_id": DOCUMENT.document_url,
            "client_name": DOCUMENT.name,
            "redirect_uris": ["http://127.0.0.1/oauth/callback", "http://localhost/oauth/callback"],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        }
    )
}


def notion_front(upstream: str) -> Tables:
    """One MCP server, at `/notion/mcp`, whose users are who they are at Notion."""
    return {
        "issuer": {"identity": "notion"},
        "issuer.client_documents": {"pinned": "client-documents"},
        "clients.reporting": STATIC_CLIENT,
        "servers.notion": {"upstream": upstream, "providers": ["notion"], "handle": NOTION_HANDLE},
    }
