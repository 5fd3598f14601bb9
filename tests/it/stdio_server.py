"""An MCP server on stdin and stdout with the tools that tests need. It starts fast: no site, no imports but these."""

import json
import os
import signal
import subprocess
import sys
import time

heard = []


def facts(asked):
    """All that it can find out about itself and others."""

    def writes(directory):
        path = os.path.join(directory, f"probe-{os.getpid()}")
        try:
            with open(path, "w") as file:
                file.write("x")
            os.remove(path)
            return True
        except OSError:
            return False

    def reads(path):
        try:
            if os.path.isdir(path):
                os.listdir(path)
                return True
            with open(path, "rb") as file:
                return bool(file.read(1))
        except OSError:
            return False

    own = ("HOME", "TMPDIR")
    return {
        "pid": os.getpid(),
        "user": os.getuid(),
        "directory": os.getcwd(),
        "environment": dict(os.environ),
        # The last one is that of the directory that is being listed.
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
        "owns": {name: writes(os.environ[name]) for name in own},
        "writes": {path: writes(path) for path in asked.get("writes", [])},
        "reads": {path: reads(path) for path in asked.get("reads", [])},
        "limits": open("/proc/self/limits").read(),
    }


def move(outside):
    """Whether files move and are linked between its own directories, and to and from others."""

    def can(do, *paths):
        try:
            do(*paths)
            return True
        except OSError:
            return False

    for directory in ("a", "b"):
        os.mkdir(directory)
    for name in ("x", "y"):
        with open(f"a/{name}", "w") as file:
            file.write(name)
    os.mkdir("a/directory")
    own = [can(os.rename, "a/x", "b/x"), can(os.rename, "a/directory", "b/directory"), can(os.link, "a/y", "b/y")]
    own.append(can(os.rename, "b/x", os.path.join(os.environ["TMPDIR"], "x")))
    others = [can(do, "b/y", os.path.join(outside, "y")) for do in (os.rename, os.link)]
    others += [can(do, os.path.join(outside, "theirs"), "a/theirs") for do in (os.rename, os.link)]
    return {"own": own, "others": others}


def nest(depth):
    """Directories in directories, with files, and some that even their owner must open before looking into them."""
    for level in range(depth):
        with open("file", "w") as file:
            file.write("x")
        os.mkdir("d")
        os.chdir("d")
        if level % 1000 == 0:
            os.chmod("..", 0o000)
    return True


def listen(port):
    """How it ends to listen on a port of this machine: with an errno if there is one."""
    import socket

    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            listener.listen()
            socket.create_connection(listener.getsockname()).close()
            return "listens"
    except OSError as error:
        return error.errno


def keys(asked):
    """Those of the asked ones that some keyring has; then leaves one in each."""
    import ctypes

    add_key, keyctl = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine]
    search, rings = 10, {"session": -3, "user": -4, "user session": -5}
    kernel = ctypes.CDLL(None).syscall
    found = [
        f"{name} in {where}"
        for where, ring in rings.items()
        for name in asked["look"]
        if kernel(keyctl, search, ring, b"user", name.encode(), 0) >= 0
    ]
    name = asked["leave"].encode()
    left = [where for where, ring in rings.items() if kernel(add_key, b"user", name, b"x", 1, ring) >= 0]
    return {"found": found, "left": left}


def made(kind):
    import socket

    try:
        socket.socket(*kind).close()
    except OSError as error:
        return error.errno
    return "made"


def ring():
    """Why the kernel makes no io_uring: there is none, or it was asked for badly."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).syscall(425, 1, None)
    return ctypes.get_errno()


def call(name, asked):
    if name == "facts":
        return facts(asked)
    if name == "heard":
        heard.append(asked["who"])
        return heard
    if name == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "mute":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.close(1)
        time.sleep(60)
    if name == "eat":
        return len(bytearray(asked["bytes"]))
    if name == "shout":
        sys.stderr.write(asked["text"] + "\n")
        sys.stderr.flush()
        return True
    if name == "move":
        return move(asked["outside"])
    if name == "nest":
        return nest(asked["depth"])
    if name == "listen":
        return [listen(port) for port in asked["ports"]]
    if name == "sockets":
        return {"ring": ring(), "sockets": [made(kind) for kind in asked["kinds"]]}
    if name == "keys":
        return keys(asked)
    if name == "leave":
        subprocess.Popen(["sleep", asked["seconds"]], start_new_session=True)
        return True
    return None


def answer(message):
    method, params = message["method"], message.get("params", {})
    if method == "initialize":
        about = {"name": "tools of tests", "version": "1"}
        return {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": about}
    if method == "tools/call":
        result = call(params["name"], params.get("arguments", {}))
        return {"content": [{"type": "text", "text": json.dumps(result)}]}
    return None


for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message or message.get("params", {}).get("name") == "hang":
        continue
    result = answer(message)
    outcome = {"error": {"code": -32601, "message": "unknown"}} if result is None else {"result": result}
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **outcome}) + "\n")
    sys.stdout.flush()
