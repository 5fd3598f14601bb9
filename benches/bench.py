"""Injection beside bare Pingora, interception beside mitmproxy, and the figures of start, size and storms.

See docs/benchmarks.md."""

import argparse
import asyncio
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import arrangement
import interception
from arrangement import CONNECTIONS, LOAD_CORE, PROXY_CORE, Failed, Program, Sidekey, Simulator

PATH = "/quickbooks/v3/company/0/companyinfo/0"
STORM = 500
# What HTTP clients send along, whoever they are.
CLIENT_HEADERS = ["Accept: application/json", "User-Agent: bench/1.0"]

GOAL_RATIO, GOAL_RSS_MB, GOAL_READY_MS, GOAL_BINARY_MB = 1.10, 40, 300, 25


@dataclass
class Candidate:
    """A proxy and how it is called."""

    name: str
    program: Program
    port: int
    headers: list[str]
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)

    def load(self, seconds: float) -> tuple[int, float, float]:
        """Requests done, wall-clock seconds, CPU seconds of the proxy."""
        options = [option for header in CLIENT_HEADERS + self.headers for option in ("-H", header)]
        before = self.program.cpu_seconds()
        command = ["taskset", "--cpu-list", str(LOAD_CORE), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
        url = f"http://127.0.0.1:{self.port}{PATH}"
        done = subprocess.run([*command, *options, url], capture_output=True, text=True, check=True)
        cpu = self.program.cpu_seconds() - before
        found = re.search(r"(\d+) requests in ([\d.]+)(m?s)", done.stdout)
        if found is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
            raise Failed(f"{self.name}: not every request was answered with 200:\n{done.stdout}")
        return int(found[1]), float(found[2]) / (1000 if found[3] == "ms" else 1), cpu

    def percentile(self, seconds: int) -> float:
        """Milliseconds that 99 of 100 calls take at most, with few connections, so that no queue is measured."""
        options = [option for header in CLIENT_HEADERS + self.headers for option in ("-H", header)]
        command = ["taskset", "--cpu-list", str(LOAD_CORE), "wrk", "-t1", "-c4", f"-d{seconds}s", "--latency"]
        url = f"http://127.0.0.1:{self.port}{PATH}"
        done = subprocess.run([*command, *options, url], capture_output=True, text=True, check=True)
        found = re.search(r"99%\s+([\d.]+)(us|ms|s)", done.stdout)
        if found is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
            raise Failed(f"{self.name}: not every request was answered with 200:\n{done.stdout}")
        return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]

    def measure(self, seconds: float) -> None:
        requests, wall, cpu = self.load(seconds)
        self.rates.append(requests / wall)
        self.cpu.append(cpu / requests * 100_000)
        self.busy.append(cpu / wall * 100)


def compare(candidates: list[Candidate], rounds: int, seconds: int) -> None:
    for candidate in candidates:
        candidate.load(max(1, seconds // 4))
    for number in range(rounds):
        for candidate in candidates if number % 2 == 0 else reversed(candidates):
            candidate.measure(seconds)
    width = max(len(candidate.name) for candidate in candidates)
    print(f"\n| {'proxy':{width}} | requests/s | CPU s / 100k | x bare | RSS MB |")
    print(f"|{'-' * (width + 2)}|-----------:|-------------:|-------:|-------:|")
    for candidate in candidates:
        ratios = [own / bare for own, bare in zip(candidate.cpu, candidates[0].cpu)]
        rate, cpu, ratio = map(statistics.median, (candidate.rates, candidate.cpu, ratios))
        rss = candidate.program.rss_mb()
        print(f"| {candidate.name:{width}} | {rate:10,.0f} | {cpu:12.2f} | {ratio:6.2f} | {rss:6.1f} |")
    print(f"\nx bare in each round (goal: at most {GOAL_RATIO:.2f} in the median); how busy the proxy's core was:")
    for candidate in candidates:
        ratios = " ".join(f"{own / bare:.2f}" for own, bare in zip(candidate.cpu, candidates[0].cpu))
        print(f"  {candidate.name:{width}}  {ratios}; {statistics.median(candidate.busy):.0f} %")
    print()


def start_and_size(sidekey: Sidekey, starts: int) -> None:
    size = os.path.getsize(arrangement.binary("SIDEKEY_BIN")) / 1e6
    ready, rss = [], []
    for _ in range(starts):
        begin = time.monotonic()
        program = sidekey.start()
        try:
            program.wait_until(sidekey.is_ready, pause=0.001)
            ready.append((time.monotonic() - begin) * 1000)
            time.sleep(2)
            rss.append(program.rss_mb())
        finally:
            program.stop()
    line("release binary", f"{size:.1f} MB", f"under {GOAL_BINARY_MB}")
    line("ready after start", f"{statistics.median(ready):.0f} ms", f"within {GOAL_READY_MS}", f"slowest of {starts}: {max(ready):.0f}")
    line("idle memory (RSS)", f"{statistics.median(rss):.1f} MB", f"under {GOAL_RSS_MB}")


def storm(directory: Path, simulator: Simulator) -> None:
    """All callers of one connection at once, while its token has expired and the token endpoint is slow."""
    lifetime, delay = 3.0, 2.0
    api = f'origin = "{simulator.url}"\nbase_path = "/quickbooks/api"'
    simulator.control("POST", "reset")
    simulator.control("PUT", "settings/quickbooks", {"access_lifetime_s": lifetime})
    fault = {"profile": "quickbooks", "endpoint": "refresh", "kind": "delay_ms", "ms": int(delay * 1000)}
    simulator.control("POST", "faults", fault)
    sidekey = Sidekey(directory / "storm", simulator, api)
    with sidekey.running():
        sidekey.connect()
        expired_at = time.monotonic() + lifetime + 0.1
        simulator.control("PUT", "settings/quickbooks", {"access_lifetime_s": 3600.0})
        handle = sidekey.handle()
        statuses, waited = asyncio.run(strike(sidekey.egress, handle, expired_at))
    counters = simulator.counters()
    ok = statuses.count(200)
    refreshes, accepted = counters["refresh_attempts"], counters["api_calls_ok"]
    line("storm on an expired token", f"{STORM} requests", "", f"{ok} answered with 200, after {waited:.2f} s at most")
    line("  refreshes in the ledger", f"{refreshes}", "exactly 1", f"{accepted} API calls with a valid token")
    if (ok, refreshes, accepted, counters["api_calls_rejected"]) != (STORM, 1, STORM, 0):
        raise Failed(f"the storm went wrong: {counters}")


def slow_refresh(directory: Path, simulator: Simulator, port: int, rounds: int, seconds: int) -> None:
    """Calls while a refresh takes half a minute, beside calls while there is none to do, in turns."""
    lifetime, delay = 120.0, 30.0
    simulator.control("POST", "reset")
    api = f'origin = "http://127.0.0.1:{port}"'
    calm = Sidekey(directory / "calm", simulator, api)
    slow = Sidekey(directory / "slow", simulator, api, "[refresh]\nlargest_share = 0.9\n")
    with calm.running(PROXY_CORE) as calm_program, slow.running(PROXY_CORE) as slow_program:
        calm.connect()
        simulator.control("PUT", "settings/quickbooks", {"access_lifetime_s": lifetime})
        fault = {"profile": "quickbooks", "endpoint": "refresh", "kind": "delay_ms", "ms": int(delay * 1000)}
        simulator.control("POST", "faults", fault)
        slow.connect()
        candidates = [
            Candidate("no refresh", calm_program, calm.egress, [f"Authorization: Bearer {calm.handle()}"]),
            Candidate("refresh of 30 s", slow_program, slow.egress, [f"Authorization: Bearer {slow.handle()}"]),
        ]
        for candidate in candidates:
            candidate.percentile(1)
        slow_program.wait_until(lambda: simulator.counters()["refresh_attempts"] > 0, seconds=60, pause=0.1)
        begin = time.monotonic()
        seconds = min(seconds, max(1, int((delay - 4) / (2 * rounds))))
        latencies: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
        for number in range(rounds):
            for candidate in candidates if number % 2 == 0 else reversed(candidates):
                latencies[candidate.name].append(candidate.percentile(seconds))
        if time.monotonic() - begin > delay or simulator.counters()["refresh_attempts"] != 1:
            raise Failed("the refresh was over before the measurement was")
    calm_p99, slow_p99 = (statistics.median(latencies[candidate.name]) for candidate in candidates)
    ratios = " ".join(f"{slow / calm:.2f}" for calm, slow in zip(*latencies.values()))
    line("p99 without a refresh", f"{calm_p99:.2f} ms", "")
    line("p99 during a refresh of 30 s", f"{slow_p99:.2f} ms", "unchanged", f"x without, in each round: {ratios}")


async def strike(port: int, handle: str, at: float) -> tuple[list[int], float]:
    """Opens all connections, then sends all requests at the same moment. The statuses, and the longest wait."""
    head = f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {handle}\r\nConnection: close\r\n\r\n"
    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(STORM)]
    await asyncio.sleep(max(0.0, at - time.monotonic()))
    begin = time.monotonic()

    async def call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        writer.write(head.encode())
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        return int(answer.split(b" ", 2)[1])

    statuses = await asyncio.gather(*(call(*stream) for stream in streams))
    return statuses, time.monotonic() - begin


def line(what: str, value: str, goal: str, remark: str = "") -> None:
    goal = f"(goal: {goal})" if goal else ""
    print(f"{what:30}{value:>14}  {goal:22}{remark}".rstrip())


def machine() -> str:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=False).stdout
    version = " ".join(rustc.split()[:2]) or "rustc unknown"
    return f"{os.cpu_count()} x {model[1] if model else platform.machine()}, Linux {platform.release()}, {version}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two short rounds: a first look, not a figure to quote")
    parser.add_argument("--only-slow-refresh", action="store_true", help="only what a refresh of 30 s does to calls meanwhile")
    parser.add_argument("--only-interception", action="store_true", help="only interception, beside mitmproxy")
    parser.add_argument("--rounds", type=int, help="how often everything is measured (default 6)")
    parser.add_argument("--seconds", type=int, help="how long each measurement takes (default 10)")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (2 if arguments.quick else 6)
    seconds = arguments.seconds or (3 if arguments.quick else 10)
    if (os.cpu_count() or 1) < 2:
        raise Failed("two cores are needed: one for the load, one for the proxy")
    print(f"{time.strftime('%Y-%m-%d')}, {machine()}\n{rounds} rounds of {seconds} s, {CONNECTIONS} connections, one worker", flush=True)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sidekey-bench-")))
        port = stack.enter_context(arrangement.upstream(directory, LOAD_CORE))
        simulator = stack.enter_context(arrangement.simulator(directory))
        if arguments.only_slow_refresh:
            slow_refresh(directory, simulator, port, rounds, seconds)
            return
        if arguments.only_interception:
            interception.compare(directory, simulator, rounds, seconds)
            return
        simulator.give_long_tokens()
        sidekey = Sidekey(directory / "sidekey", simulator, f'origin = "http://127.0.0.1:{port}"')
        with sidekey.running(PROXY_CORE) as program, arrangement.bare(directory, port, PROXY_CORE) as (bare, bare_port):
            sidekey.connect()
            bearer = [f"Authorization: Bearer {sidekey.handle()}"]
            candidates = [
                Candidate("bare Pingora", bare, bare_port, bearer),
                Candidate("Sidekey, handle", program, sidekey.egress, bearer),
                Candidate("Sidekey, fixed subject", program, sidekey.egress, []),
            ]
            compare(candidates, rounds, seconds)
        start_and_size(sidekey, 3 if arguments.quick else 9)
        storm(directory, simulator)
        slow_refresh(directory, simulator, port, rounds, seconds)
        interception.compare(directory, simulator, rounds, seconds)


if __name__ == "__main__":
    # So that everything that was started is stopped as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: told to stop"))
    try:
        main()
    except Failed as failed:
        sys.exit(f"bench: {failed}")
