"""Tries to get at what is not its own. Reads what it looks for from standard input, and says where it found it."""

import ctypes
import json
import os
import re
import socket
import subprocess
import sys

asked = json.load(sys.stdin)
needles = {name: text.encode() for name, text in asked["needles"].items()}
own = {str(os.getpid()), "self", "thread-self"}


def found(where, content):
    for name, needle in needles.items():
        if needle in content:
            print(f"{name} in {where}", flush=True)


def read(path, limit=4_000_000):
    try:
        with open(path, "rb") as file:
            found(path, file.read(limit))
    except OSError:
        pass


def files(root=""):
    for path in asked["files"]:
        read(root + path)
    for directory in asked["directories"]:
        try:
            for name in os.listdir(root + directory):
                read(os.path.join(root + directory, name))
        except OSError:
            pass


def admin(root=""):
    try:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(5)
        connection.connect(root + asked["socket"])
        connection.sendall(b"GET /v1/handles HTTP/1.0\r\nhost: localhost\r\n\r\n")
        print("admin in the socket:", len(connection.recv(4096)), flush=True)
    except OSError:
        pass


def memory(pid):
    try:
        maps = open(f"/proc/{pid}/maps").read()
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
            for line in maps.splitlines():
                start, end, flags = re.match(r"(\w+)-(\w+) (\S+)", line).groups()
                if flags.startswith("rw"):
                    mem.seek(int(start, 16))
                    found(f"memory of {pid}", mem.read(min(int(end, 16) - int(start, 16), 8_000_000)))
    except (OSError, ValueError, OverflowError):
        pass


def is_interesting(pid):
    try:
        return b"sidekey" in open(f"/proc/{pid}/cmdline", "rb").read() or b"HTTPS_PROXY" in open(f"/proc/{pid}/environ", "rb").read()
    except OSError:
        return True


libc = ctypes.CDLL(None, use_errno=True)


def keyrings():
    keyctl = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
    search, read_key, session = 10, 11, -3
    content = ctypes.create_string_buffer(4096)
    key = libc.syscall(keyctl, search, session, b"user", asked["key"].encode(), 0)
    if key >= 0 and libc.syscall(keyctl, read_key, key, content, len(content)) >= 0:
        found("the session keyring", content.raw)


files()
admin()
keyrings()
for pid in os.listdir("/proc"):
    if not pid.isdigit() or pid in own or not is_interesting(pid):
        continue
    read(f"/proc/{pid}/environ")
    files(f"/proc/{pid}/root")
    files(f"/proc/{pid}/cwd/..")
    memory(pid)
    try:
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
            if target.startswith("/") and not target.startswith(("/dev", "/proc")):
                read(f"/proc/{pid}/fd/{descriptor}")
    except OSError:
        pass
    if pid != "1" and int(pid) != os.getppid() and libc.ptrace(16, int(pid), 0, 0) == 0:  # PTRACE_ATTACH
        print(f"traced: {open(f'/proc/{pid}/cmdline').read()!r}", flush=True)
        os.waitpid(int(pid), 0x40000000)
        libc.ptrace(17, int(pid), 0, 0)
# What was put over the secrets, taken away in namespaces of its own.
script = "".join(f"umount -l {path} 2>/dev/null; " for path in asked["files"] + asked["directories"])
script += "".join(f"cat {path}; " for path in asked["files"]) + "".join(f"cat {path}/*; " for path in asked["directories"])
for flags in ["-Urm", "-UrmpfC"]:
    try:
        found("namespaces of its own", subprocess.run(["unshare", flags, "sh", "-c", script], capture_output=True).stdout)
    except OSError:
        pass
for program in ["sudo", "su", "pkexec"]:
    try:
        answer = subprocess.run([program, "-n", "cat", *asked["files"]], capture_output=True, stdin=subprocess.DEVNULL, timeout=10)
        found(program, answer.stdout)
    except (OSError, subprocess.TimeoutExpired):
        pass
for name in asked["kept"]:
    try:
        open(name, "ab").close()
        print(f"{name} can be written", flush=True)
    except OSError:
        pass
print("end", flush=True)
