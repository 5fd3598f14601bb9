"""The unmodified MCP servers, each told by its own variables to use Sidekey in the place of its API."""

from harness.mcp_server import McpServer


def notion_server(egress_port: int, token: str) -> McpServer:
    """`@notionhq/notion-mcp-server`, with `token` where the Notion token would be."""
    return McpServer(
        "notion-mcp-server",
        {
            "BASE_URL": f"http://127.0.0.1:{egress_port}/notion",
            "NOTION_TOKEN": token,
        },
    )


def gitlab_server(egress_port: int, token: str) -> McpServer:
    """`@modelcontextprotocol/server-gitlab`, with `token` where the personal access token would be."""
    return McpServer(
        "mcp-server-gitlab",
        {
            "GITLAB_API_URL": f"http://127.0.0.1:{egress_port}/gitlab/api/v4",
            "GITLAB_PERSONAL_ACCESS_TOKEN": token,
        },
    )
