"""A relay in front of a server that writes down what its clients sent and got."""

import socket
import threading
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Self


class Wiretap(ThreadingTCPServer):
    """Listens on a free port, or on a given one, and passes every byte on to the target, in both directions."""

    # Closing waits until all connections have ended, so that nothing is missing in the record.
    daemon_threads = False
    block_on_close = True
    # More than one test can have at a time.
    request_queue_size = 100

    def __init__(self, target_port: int, target_host: str = "127.0.0.1", port: int = 0):
        super().__init__(("127.0.0.1", port), TappedConnection)
        self.target = (target_host, target_port)
        self.port: int = self.server_address[1]
        self.sent = bytearray()
        self.received = bytearray()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class TappedConnection(BaseRequestHandler):
    """One client's connection, and the one to the server that was made for it."""

    server: Wiretap

    def handle(self) -> None:
        with socket.create_connection(self.server.target) as target:
            answers = threading.Thread(target=relay, args=(target, self.request, self.server.received))
            answers.start()
            relay(self.request, target, self.server.sent)
            answers.join()


def relay(source: socket.socket, target: socket.socket, record: bytearray) -> None:
    """Passes on what comes until it ends, and then the end itself."""
    try:
        while data := source.recv(65_536):
            record += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one side went away; so does the other
