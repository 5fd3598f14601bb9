"""An MCP server of the older era on stdin and stdout whose tools say what reached it, and answer when they are told to."""

import json
import os
import sys

lines = []
# Calls that wait, and what they wait for.
waiting = {}


def say(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def answer(id, result):
    say({"id": id, "result": {"content": [{"type": "text", "text": json.dumps(result)}]}})


def call(message):
    id, params = message["id"], message["params"]
    name, arguments = params["name"], params.get("arguments", {})
    if name == "everything":
        answer(id, {"lines": lines, "environment": dict(os.environ), "pid": os.getpid()})
    elif name == "wait":
        waiting[id] = arguments["word"]
        token = params["_meta"]["progressToken"]
        say({"method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
    elif name == "go":
        for other in [other for other, word in waiting.items() if word == arguments["word"]]:
            answer(other, waiting.pop(other))
        answer(id, True)
    elif name == "cancelled":
        # Answered by the next cancellation, if there was none yet.
        waiting[id] = None
        settle()
    elif name == "news":
        say({"method": "notifications/tools/list_changed"})
        answer(id, True)
    elif name == "echo":
        answer(id, len(arguments["text"]))


gone = []


def settle():
    for asker in [id for id, word in waiting.items() if word is None]:
        if gone:
            del waiting[asker]
            answer(asker, gone.pop(0))


for line in sys.stdin:
    lines.append(line[:200])
    message = json.loads(line)
    method = message.get("method")
    if method == "initialize":
        about = {"name": "bridged", "version": "1"}
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {"listChanged": True}}, "serverInfo": about}
        say({"id": message["id"], "result": result})
    elif method == "tools/call":
        call(message)
    elif method == "notifications/cancelled":
        id = message["params"]["requestId"]
        if id in waiting:
            gone.append(waiting.pop(id))
        settle()
    elif "id" in message:
        say({"id": message["id"], "error": {"code": -32601, "message": "unknown"}})
