"""The least that an MCP server on stdin and stdout can do: every call has the same answer."""

import json
import sys

ABOUT = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "echo", "version": "1"}}
CALLED = {"content": [{"type": "text", "text": "x" * 200}]}

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    known = {"initialize": ABOUT, "tools/call": CALLED}.get(message["method"])
    outcome = {"result": known} if known else {"error": {"code": -32601, "message": "unknown"}}
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **outcome}) + "\n")
    sys.stdout.flush()
