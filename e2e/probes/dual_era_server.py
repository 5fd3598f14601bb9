"""A server made with the Python SDK that speaks both eras of the protocol on stdio, and says in which one it was asked."""

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

server = MCPServer("dual-era", instructions="Ask it in which era it was asked.")


@server.tool()
async def era(name: str, ctx: Context) -> str:
    """Greets, and says in which era."""
    version = ctx.request_context.protocol_version
    return f"Hello {name}, in the {'newer' if version in MODERN_PROTOCOL_VERSIONS else 'older'} era, at {version}"


@server.tool()
async def count(to: int, ctx: Context) -> dict[str, int]:
    """Counts, and reports each step."""
    for number in range(1, to + 1):
        await ctx.report_progress(number, to, f"step {number}")
    return {"counted": to}


@server.tool()
def fail() -> str:
    """Always fails."""
    raise ValueError("this tool fails, and says so: größer als 1")


@server.tool()
def repeat(text: str, times: int) -> str:
    """A text as large as one likes."""
    return text * times


given_up = anyio.Event()


@server.tool()
async def never() -> str:
    """Does not answer, and notices when nobody waits any longer."""
    try:
        await anyio.sleep_forever()
    finally:
        given_up.set()
    return ""


@server.tool()
async def was_given_up() -> bool:
    """Answers once nobody waits for `never` any longer."""
    await given_up.wait()
    return True


@server.resource("notes://{name}")
def note(name: str) -> str:
    """A note."""
    return f"what {name} noted\nin two lines"


@server.prompt()
def ask(about: str) -> str:
    """Asks."""
    return f"What is {about}?"


server.run("stdio")
