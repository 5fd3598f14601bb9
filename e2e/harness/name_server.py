"""A name server: `python name_server.py ADDRESS NAMES`, where NAMES is a JSON object of lists of addresses.

Prints `{"url": ...}` once it listens, and then each name that it is asked for. Other names do not exist.
"""

import ipaddress
import json
import socket
import struct
import sys

A, AAAA = 1, 28
NO_SUCH_NAME = 3
HEADER_BYTES = 12


def main() -> None:
    address, names = sys.argv[1], json.loads(sys.argv[2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((address, 53))
        print(json.dumps({"url": f"dns://{address}:53"}), flush=True)
        while True:
            query, sender = listener.recvfrom(4096)
            if len(query) <= HEADER_BYTES:
                continue  # no query at all
            name, question = question_of(query)
            print(name, flush=True)
            listener.sendto(answer(query, name, question, names), sender)


def question_of(query: bytes) -> tuple[str, bytes]:
    """The name, and the question as it came (RFC 1035, section 4.1.2)."""
    labels, at = [], HEADER_BYTES
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += 1 + query[at]
    return ".".join(labels).lower(), query[HEADER_BYTES : at + 5]


def answer(query: bytes, name: str, question: bytes, names: dict[str, list[str]]) -> bytes:
    kind = struct.unpack("!H", question[-4:-2])[0]
    known = [ipaddress.ip_address(address) for address in names.get(name, [])]
    fitting = [address for address in known if kind == (A if address.version == 4 else AAAA)]
    code = 0 if name in names else NO_SUCH_NAME
    head = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(fitting), 0, 0)
    # Each record names the question, which begins behind the header.
    records = [struct.pack("!HHHIH", 0xC00C, kind, 1, 60, len(one.packed)) + one.packed for one in fitting]
    return head + question + b"".join(records)


if __name__ == "__main__":
    main()
