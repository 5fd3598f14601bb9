"""Programs in many languages reach the real names of providers with nothing but the environment that Sidekey prints."""

import json
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.impostor import Impostor
from harness.probe import AXIOS, CURL, FETCH, GO, HTTPX, JAVA, REQUESTS, Probe, output
from harness.sidekey import Sidekey, StartSidekey, handle_in
from harness.simulator import Simulator, newest_token

USER = "https://api.github.com/user"
CHANNELS = "https://slack.com/api/conversations.list"
UNLISTED = "https://unlisted.example/"
# Leads to somebody else.
FILES = "https://files.slack.com/files"

PROBES = {"curl": CURL, "requests": REQUESTS, "httpx": HTTPX, "fetch": FETCH, "axios": AXIOS, "go": GO, "java": JAVA}

# Java takes no credential of a proxy from its environment: its programs present the handle as their token.
WITHOUT_CREDENTIAL = {"java"}

every_probe = pytest.mark.parametrize("name", PROBES)

# What each says when a tunnel is refused with 403. axios takes the answer of the proxy for that of the host.
REFUSED_TUNNEL = {
    "curl": "response 403",
    "requests": "403 Forbidden",
    "httpx": "403 Forbidden",
    "fetch": "HTTP/1.1 403 Forbidden",
    "axios": "host-not-listed",
    "go": "Forbidden",
    "java": "got: 403",
}
# A fetch that is to say another host says the right one.
WITHOUT_HOST = {"fetch"}


@pytest.fixture
def impostor() -> Iterator[Impostor]:
    with Impostor("files.slack.com") as impostor:
        yield impostor


@pytest.fixture
def sidekey(sidekey_at_companies: StartSidekey, impostor: Impostor) -> Sidekey:
    """GitHub and Slack, and somebody else where Slack has its files."""
    apis = {"slack": ["slack", "slack-files"]}
    return sidekey_at_companies("github", "slack", apis=apis, resolve={"files.slack.com": impostor.address})


@pytest.fixture
def environment(sidekey: Sidekey, tmp_path: Path) -> dict[str, str]:
    """All that a program of alice's gets; what it has as its token is not asked for."""
    printed = sidekey.printed_environment("alice", tmp_path / "sidekey", "--strict")
    return {**sidekey.bare_environment(tmp_path), **printed, "TOKEN": "placeholder"}


@every_probe
def test_its_calls_are_made_with_the_token_of_the_user(
    name: str, environment: dict[str, str], simulator: Simulator
) -> None:
    [grant], [slack_grant] = simulator.grants("github"), simulator.grants("slack")
    before = len(simulator.calls("github"))
    if name in WITHOUT_CREDENTIAL:
        environment["TOKEN"] = handle_in(environment)
    repositories_url = "https://api.github.com/user/repos?per_page=1"
    user, channels, repositories = PROBES[name].ask(environment, USER, CHANNELS, repositories_url)
    assert (user.status, user.json()["login"]) == (200, "alice"), user
    assert channels.status == 200 and channels.json()["channels"][0]["name"] == "general", channels
    assert repositories.status == 200, repositories
    calls = simulator.accepted_calls("github")[before:]
    assert [call.request for call in calls] == ["GET /user", "GET /user/repos"]
    token = newest_token(grant)
    assert {(call.grant_id, call.token_id) for call in calls} == {(grant["id"], token["id"])}
    assert simulator.accepted_calls("slack")[-1].grant_id == slack_grant["id"]


@every_probe
def test_what_is_refused_is_said_and_nothing_is_sent(
    name: str, environment: dict[str, str], simulator: Simulator, impostor: Impostor
) -> None:
    environment["TOKEN"] = handle_in(environment)
    before = len(simulator.calls("github")), len(simulator.calls("slack"))
    misdirected = [f"{USER} slack.com"] if name not in WITHOUT_HOST else []
    unlisted, files, *answers = PROBES[name].ask(environment, UNLISTED, FILES, *misdirected)
    assert REFUSED_TUNNEL[name] in (unlisted.error or unlisted.text), unlisted
    files.assert_refused(502, "provider-certificate")
    for answer in answers:
        answer.assert_refused(421, "misdirected-request")
    assert (impostor.connections, bytes(impostor.heard)) == (1, b"")
    assert (len(simulator.calls("github")), len(simulator.calls("slack"))) == before


def test_the_impostor_would_have_heard_a_token(impostor: Impostor, tmp_path: Path) -> None:
    """So that its silence means something."""
    (tmp_path / "impostor.pem").write_text(impostor.certificate)
    resolve = ["--connect-to", f"files.slack.com:443:{impostor.address}", "--cacert", str(tmp_path / "impostor.pem")]
    output(["curl", "--silent", *resolve, "--header", "authorization: Bearer token", FILES], {})
    assert b"authorization: Bearer token" in impostor.heard


@pytest.mark.parametrize(
    ("tunnel", "tls", "host"),
    [
        pytest.param("api.github.com", "slack.com", "api.github.com", id="TLS"),
        pytest.param("slack.com", "api.github.com", "api.github.com", id="tunnel"),
        pytest.param("api.github.com", "api.github.com", "slack.com", id="Host"),
        pytest.param("api.github.com", "slack.com", "slack.com", id="tunnel alone is right"),
    ],
)
def test_tunnel_tls_and_host_must_agree(
    tunnel: str, tls: str, host: str, environment: dict[str, str], sidekey: Sidekey, simulator: Simulator
) -> None:
    before = len(simulator.calls("github")), len(simulator.calls("slack"))
    status, body = ask_crosswise(sidekey, environment, tunnel, tls, host)
    assert (status, body["type"]) == (421, "urn:sidekey:error:misdirected-request"), body
    assert (len(simulator.calls("github")), len(simulator.calls("slack"))) == before


def test_curl_cannot_be_led_elsewhere_either(environment: dict[str, str], simulator: Simulator) -> None:
    """Its tunnel is asked for one host, and its TLS for another."""
    before = len(simulator.calls("github")), len(simulator.calls("slack"))
    elsewhere = ["--connect-to", "api.github.com:443:slack.com:443"]
    token = ["--header", f"authorization: Bearer {handle_in(environment)}"]
    answer = json.loads(output(["curl", "--silent", *elsewhere, *token, USER], environment))
    assert answer["type"] == "urn:sidekey:error:misdirected-request", answer
    assert (len(simulator.calls("github")), len(simulator.calls("slack"))) == before


def test_an_unlisted_host_is_refused_with_what_to_do(environment: dict[str, str], sidekey: Sidekey) -> None:
    """Most clients show no more of it than the status."""
    with connect(sidekey, environment, "unlisted.example") as stream:
        status, body = answer_on(stream)
    assert (status, body["type"]) == (403, "urn:sidekey:error:host-not-listed"), body
    assert "egress.tunnel_hosts" in body["next_step"], body


def ask_crosswise(
    sidekey: Sidekey, environment: dict[str, str], tunnel: str, tls: str, host: str
) -> tuple[int, dict[str, str]]:
    """Asks `host` over TLS for `tls` in a tunnel to `tunnel`."""
    context = ssl.create_default_context(cafile=environment["SSL_CERT_FILE"])
    with connect(sidekey, environment, tunnel) as stream:
        assert stream.recv(4096).startswith(b"HTTP/1.1 200")
        with context.wrap_socket(stream, server_hostname=tls) as inside:
            token = f"authorization: Bearer {handle_in(environment)}"
            inside.sendall(f"GET /user HTTP/1.1\r\nhost: {host}\r\n{token}\r\nconnection: close\r\n\r\n".encode())
            return answer_on(inside)


def connect(sidekey: Sidekey, environment: dict[str, str], host: str) -> socket.socket:
    """Asks for a tunnel, with the credential of the environment."""
    stream = socket.create_connection(("127.0.0.1", sidekey.addresses.egress_port), timeout=20)
    credential = b64encode(f"{handle_in(environment)}:x".encode()).decode()
    head = f"CONNECT {host}:443 HTTP/1.1\r\nhost: {host}:443\r\nproxy-authorization: Basic {credential}\r\n\r\n"
    stream.sendall(head.encode())
    return stream


def answer_on(stream: socket.socket) -> tuple[int, dict[str, str]]:
    """The status and the JSON of an answer that ends with the connection."""
    received = b""
    while data := stream.recv(65_536):
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)
