"""A server in the place of a company's, which cannot prove that it is the company."""

import datetime
import socket
import ssl
import tempfile
import threading
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Impostor(ThreadingTCPServer):
    """Speaks TLS with a certificate for `name` that it made itself, and writes down what is said to it inside."""

    # Closing waits until all connections have ended, so that nothing is missing in the record.
    daemon_threads = False
    block_on_close = True

    def __init__(self, name: str):
        super().__init__(("127.0.0.1", 0), ImpostorConnection)
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.certificate, self.context = self_signed(name)
        # How many connections there were, whatever became of them.
        self.connections = 0
        # What arrived inside of TLS.
        self.heard = bytearray()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class ImpostorConnection(BaseRequestHandler):
    """One connection; the first bytes are enough."""

    server: Impostor
    request: socket.socket

    def handle(self) -> None:
        self.server.connections += 1
        self.request.settimeout(20)
        try:
            with self.server.context.wrap_socket(self.request, server_side=True) as tls:
                self.server.heard += tls.recv(65_536)
                tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        except (ssl.SSLError, ConnectionError):
            pass  # the client did not believe it


def self_signed(name: str) -> tuple[str, ssl.SSLContext]:
    """A certificate (PEM), and a context for a server that has it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as directory:
        chain = Path(directory) / "chain.pem"
        chain.write_bytes(private + pem)
        context.load_cert_chain(chain)
    return pem.decode(), context
