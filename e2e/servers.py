"""The unmodified MCP servers, each told by its own variables to use Sidekey in the place of its API."""

from harness.mcp_http_server import McpHttpServer
from harness.mcp_server import McpServer


def notion_server(egress_port: int, token: str) -> McpServer:
    """`@notionhq/notion-mcp-server`, with `token` where the Notion token would be."""
    return McpServer("notion-mcp-server", {"BASE_URL": notion_api(egress_port), "NOTION_TOKEN": token})


# How the same server takes the token of each user in turn: in a header of its own, when a session begins, and only if
# it looks like one of Notion's. So the handle that stands for the token begins like one.
NOTION_HANDLE = {"header": "notion-token", "scheme": "raw", "prefix": "ntn_"}


def shared_notion_server(egress_port: int, port: int, host: str = "127.0.0.1") -> McpHttpServer:
    """The same for many users, over HTTP. It has no token of its own, and nobody needs one to reach it."""
    options = ["--transport", "http", "--unsafe-disable-auth", "--enable-token-passthrough"]
    return McpHttpServer(
        f"http://{host}:{port}/mcp",
        ["notion-mcp-server", *options, "--host", host, "--port", str(port)],
        {"BASE_URL": notion_api(egress_port)},
        announcement=f"MCP Server listening on {host}:{port}",
    )


def notion_api(egress_port: int) -> str:
    return f"http://127.0.0.1:{egress_port}/notion"


def gitlab_server(egress_port: int, token: str) -> McpServer:
    """`@modelcontextprotocol/server-gitlab`, with `token` where the personal access token would be."""
    return McpServer(
        "mcp-server-gitlab",
        {
            "GITLAB_API_URL": f"http://127.0.0.1:{egress_port}/gitlab/api/v4",
            "GITLAB_PERSONAL_ACCESS_TOKEN": token,
        },
    )
