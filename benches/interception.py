"""Interception beside mitmproxy: tunnels kept alive, with TLS on both sides of the proxy. See docs/benchmarks.md."""

import contextlib
import http.client
import json
import ssl
import statistics
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import arrangement
from arrangement import CONNECTIONS, LOAD_CORE, PROXY_CORE, REAL_HOST, TOKEN
from arrangement import Failed, Mitmproxy, Program, SecureUpstream, Sidekey, Simulator

PATH = "/v3/company/0/companyinfo/0"
CLIENT_HEADERS = ["Accept: application/json", "User-Agent: bench/1.0"]

EGRESS = """
extra_ca = "{authority}"
[egress.resolve]
"{host}" = "127.0.0.1:{port}"
"""


@dataclass
class Measured:
    """What one load came to."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    busy: float


@dataclass
class Candidate:
    """A proxy and how it is called: through tunnels, trusting `authority`, or at a base URL."""

    name: str
    program: Program
    port: int
    path: str
    handle: str
    authority: Path | None = None
    crowd: list[Measured] = field(default_factory=list)
    alone: list[Measured] = field(default_factory=list)

    def load(self, connections: int, seconds: float) -> Measured:
        command = ["taskset", "--cpu-list", str(LOAD_CORE), arrangement.binary("LOAD_BIN"), "--proxy", f"127.0.0.1:{self.port}"]
        command += ["--path", self.path, "--body", arrangement.BODY]
        command += ["--connections", str(connections), "--seconds", str(seconds)]
        for header in [*CLIENT_HEADERS, f"Authorization: Bearer {self.handle}"]:
            command += ["--header", header]
        if self.authority:
            command += ["--host", REAL_HOST, "--ca", str(self.authority)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise Failed(f"{self.name}: the load could not begin")
            before = self.program.cpu_seconds()
            result = json.loads(process.stdout.readline() or "null")
            cpu = self.program.cpu_seconds() - before
        if result is None or result["errors"] or not result["requests"]:
            raise Failed(f"{self.name}: not every request was answered well: {result}")
        requests, wall = result["requests"], result["seconds"]
        return Measured(requests / wall, result["p50_ms"], result["p99_ms"], cpu / requests * 1e6, cpu / wall * 100)

    def measure(self, seconds: float) -> None:
        self.crowd.append(self.load(CONNECTIONS, seconds))
        self.alone.append(self.load(1, max(1, seconds / 2)))

    def prove(self) -> None:
        """A handle is taken, and another one is refused; the load then sees that every answer is right."""
        if not self.authority:
            return
        other_end = "1" if self.handle.endswith("0") else "0"
        statuses = [self._status(handle) for handle in (self.handle, self.handle[:-1] + other_end)]
        if statuses != [200, 401]:
            raise Failed(f"{self.name}: a good handle and a bad one were answered with {statuses}")

    def _status(self, handle: str) -> int:
        context = ssl.create_default_context(cafile=str(self.authority))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=context)
        connection.set_tunnel(REAL_HOST, 443)
        return status(connection, handle)


def compare(directory: Path, simulator: Simulator, rounds: int, seconds: int) -> None:
    directory = directory / "interception"
    directory.mkdir()
    secure = SecureUpstream(directory)
    with secure.running(LOAD_CORE), candidates(directory, simulator, secure) as found:
        prove_the_upstream(secure, found[0].handle)
        for candidate in found:
            candidate.prove()
            candidate.load(CONNECTIONS, max(1, seconds / 4))
        for number in range(rounds):
            for candidate in found if number % 2 == 0 else reversed(found):
                opened = secure.connections()
                candidate.measure(seconds)
                check_reuse(candidate.name, secure.connections() - opened)
        report(found)


@contextlib.contextmanager
def candidates(directory: Path, simulator: Simulator, secure: SecureUpstream) -> Iterator[list[Candidate]]:
    simulator.control("POST", "reset")
    simulator.give_long_tokens()
    egress = EGRESS.format(authority=secure.authority, host=REAL_HOST, port=secure.port)
    sidekey = Sidekey(directory / "sidekey", simulator, f'origin = "https://{REAL_HOST}"', egress=egress)
    with sidekey.running(PROXY_CORE) as program:
        sidekey.connect()
        handle = sidekey.handle()
        authority = sidekey.authority()
        mitmproxy = Mitmproxy(directory, secure, handle)
        with mitmproxy.running(PROXY_CORE) as mitmdump:
            yield [
                Candidate("mitmproxy", mitmdump, mitmproxy.port, PATH, handle, mitmproxy.authority),
                Candidate("Sidekey", program, sidekey.egress, PATH, handle, authority),
                Candidate("Sidekey, base URL", program, sidekey.egress, f"/quickbooks{PATH}", handle),
            ]


def versions() -> str:
    """What mitmproxy says it is, and its Python."""
    command = [arrangement.binary("MITMDUMP_BIN"), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return ", ".join(" ".join(line.replace(":", "").split()[:2]) for line in said.splitlines()[:2])


def prove_the_upstream(secure: SecureUpstream, handle: str) -> None:
    """It answers 200 to the token alone, so that every 200 says that the token arrived, and not the handle."""
    statuses = []
    for credential in (TOKEN, handle):
        context = ssl.create_default_context(cafile=str(secure.authority))
        context.check_hostname = False
        connection = http.client.HTTPSConnection("127.0.0.1", secure.port, timeout=10, context=context)
        statuses.append(status(connection, credential))
    if statuses != [200, 403]:
        raise Failed(f"the upstream answered {statuses} to the token and to the handle")


def status(connection: http.client.HTTPConnection, credential: str) -> int:
    try:
        connection.request("GET", PATH, headers={"authorization": f"Bearer {credential}"})
        return connection.getresponse().status
    finally:
        connection.close()


def check_reuse(name: str, opened: int) -> None:
    """Connections to the upstream are kept alive: at most one for each of ours, and those that count."""
    if opened > CONNECTIONS + 10:
        raise Failed(f"{name}: {opened} connections to the upstream were opened for {CONNECTIONS + 1} callers")


def report(found: list[Candidate]) -> None:
    width = max(len(candidate.name) for candidate in found)
    columns = ["requests/s", "CPU us/request", "p50 ms", "p99 ms", f"p50 ms, {CONNECTIONS}", f"p99 ms, {CONNECTIONS}", "RSS MB"]
    print(f"\n| {'interception':{width}} | {' | '.join(columns)} |")
    print(f"|{'-' * (width + 2)}|{'|'.join('-' * (len(column) + 1) + ':' for column in columns)}|")
    for candidate in found:
        crowd, alone = (median_of(which) for which in (candidate.crowd, candidate.alone))
        cells = [f"{crowd.rate:,.0f}", f"{crowd.cpu_us:.1f}", f"{alone.p50_ms:.2f}", f"{alone.p99_ms:.2f}"]
        cells += [f"{crowd.p50_ms:.2f}", f"{crowd.p99_ms:.2f}", f"{candidate.program.rss_mb():.1f}"]
        print(f"| {candidate.name:{width}} | {' | '.join(f'{cell:>{len(column)}}' for cell, column in zip(cells, columns))} |")
    mitmproxy, *others = found
    print(f"\n{versions()}")
    print("median of the ratios within each round (and the rounds); how busy the proxy's core was:")
    for candidate in others:
        print(f"  {candidate.name}:")
        for what, pairs in ratios(candidate, mitmproxy).items():
            print(f"    {what:44} {statistics.median(pairs):7.2f}  ({' '.join(f'{pair:.2f}' for pair in pairs)})")
    for candidate in found:
        print(f"  {candidate.name:{width}}  {median_of(candidate.crowd).busy:.0f} %")
    print()


def ratios(candidate: Candidate, mitmproxy: Candidate) -> dict[str, list[float]]:
    """How many times better than mitmproxy, in each round."""

    def more(own: list[Measured], other: list[Measured], figure: Callable[[Measured], float]) -> list[float]:
        return [figure(one) / figure(two) for one, two in zip(own, other)]

    return {
        "requests/s, x mitmproxy": more(candidate.crowd, mitmproxy.crowd, lambda one: one.rate),
        "CPU per request, mitmproxy x": more(mitmproxy.crowd, candidate.crowd, lambda one: one.cpu_us),
        "p50 with one connection, mitmproxy x": more(mitmproxy.alone, candidate.alone, lambda one: one.p50_ms),
        "p99 with one connection, mitmproxy x": more(mitmproxy.alone, candidate.alone, lambda one: one.p99_ms),
    }


def median_of(measured: list[Measured]) -> Measured:
    def median(figure: Callable[[Measured], float]) -> float:
        return statistics.median(map(figure, measured))

    return Measured(
        rate=median(lambda one: one.rate),
        p50_ms=median(lambda one: one.p50_ms),
        p99_ms=median(lambda one: one.p99_ms),
        cpu_us=median(lambda one: one.cpu_us),
        busy=median(lambda one: one.busy),
    )
