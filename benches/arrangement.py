"""The programs of the benchmark: started, pinned to a core, and stopped."""

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

CLIENT_SECRET = "quickbooks-client-secret-4f9d0b7c61e2"
BODY = '{"CompanyInfo":{"Id":"1","CompanyName":"Sandbox Company US 1","Country":"US"},"n":1}\n'
# What the simulator's access tokens are replaced by: as long as real ones.
TOKEN = "t" * 900
REAL_HOST = "quickbooks.api.intuit.com"
CONNECTIONS = 64
LOAD_CORE, PROXY_CORE = 0, 1

NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    {temporary}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        default_type application/json;
        location / {{ return 200 '{body}'; }}
    }}
    {more}
}}
"""

# The provider at its real host: answers those alone who have the token.
SECURE_SERVER = """
    server {{
        listen 127.0.0.1:{port} ssl backlog=4096;
        ssl_certificate {directory}/provider.pem;
        ssl_certificate_key {directory}/provider.key;
        default_type application/json;
        large_client_header_buffers 4 8k;
        location / {{
            if ($http_authorization != "Bearer {token}") {{ return 403; }}
            return 200 '{body}';
        }}
    }}
    server {{
        listen 127.0.0.1:{status_port};
        location / {{ stub_status; }}
    }}
"""

SIDEKEY = """
threads = 1
provider_directory = "providers"
[public]
listen = "127.0.0.1:{public}"
[egress]
listen = "127.0.0.1:{egress}"
subject = "bench"
{more_egress}
[metrics]
listen = "127.0.0.1:{metrics}"
[store]
keys = ["file:sidekey.key"]
[providers.quickbooks]
client_id = "quickbooks-client-id"
client_secret = "env:QUICKBOOKS_CLIENT_SECRET"
"""

PROVIDER = """
extends = "quickbooks"
[authorize]
url = "{simulator}/quickbooks/authorize"
[token]
url = "{simulator}/quickbooks/token"
[environments.production.apis.quickbooks]
{api}
"""


class Failed(Exception):
    """The benchmark cannot go on."""


class Program:
    """A process of ours."""

    def __init__(self, command: list[str | Path], log: Path, core: int | None = None, environment: dict | None = None):
        pinned = [] if core is None else ["taskset", "--cpu-list", str(core)]
        self.log = log
        with log.open("ab") as output:
            # taskset becomes the program, so the process id stays.
            self.process = subprocess.Popen(
                [*pinned, *map(str, command)], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) / 1024 if found else 0.0

    def wait_until(self, is_so: Callable[[], bool], seconds: float = 10.0, pause: float = 0.01) -> None:
        end = time.monotonic() + seconds
        while not is_so():
            if self.process.poll() is not None or time.monotonic() > end:
                raise Failed(f"{self.process.args} did not come up:\n{self.log.read_text()}")
            time.sleep(pause)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def running(*arguments, **options) -> Iterator[Program]:
    program = Program(*arguments, **options)
    try:
        yield program
    finally:
        program.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int, path: str = "/") -> bool:
    """Whether `path` is there and answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


def binary(variable: str) -> str:
    return os.environ[variable]


@contextlib.contextmanager
def upstream(directory: Path, core: int, more: str = "") -> Iterator[int]:
    """nginx that answers everything with the same 85 bytes; its port. `more` are further servers."""
    port = free_port()
    kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    temporary = "\n    ".join(f"{kind}_temp_path {directory}/nginx-{kind};" for kind in kinds)
    config = directory / "nginx.conf"
    config.write_text(NGINX.format(directory=directory, port=port, temporary=temporary, body=BODY, more=more))
    command = ["nginx", "-p", directory, "-e", "stderr", "-c", config]
    with running(command, directory / "nginx.log", core=core) as program:
        program.wait_until(lambda: answers(port))
        yield port


class SecureUpstream:
    """The provider's API over TLS, at `port`; `authority` is who made its certificate."""

    def __init__(self, directory: Path):
        self.port, self.status_port = free_port(), free_port()
        self.authority = directory / "provider-ca.pem"
        self.directory = directory

    @contextlib.contextmanager
    def running(self, core: int) -> Iterator[None]:
        self._make_certificates()
        ports = {"port": self.port, "status_port": self.status_port}
        more = SECURE_SERVER.format(**ports, directory=self.directory, token=TOKEN, body=BODY)
        with upstream(self.directory, core, more):
            yield

    def connections(self) -> int:
        """How many connections it has accepted so far, those of this question among them."""
        status, _, body = request("GET", f"http://127.0.0.1:{self.status_port}/")
        found = re.search(r"requests\s+(\d+) ", body)
        if status != 200 or found is None:
            raise Failed(f"nginx does not say how many connections there were: {status} {body}")
        return int(found[1])

    def _make_certificates(self) -> None:
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-x509", "-days", "2"]
        ca = self.directory / "provider-ca.key"
        ca_extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"]
        leaf_extensions = [f"subjectAltName=DNS:{REAL_HOST}", "basicConstraints=critical,CA:FALSE"]
        leaf_extensions += ["keyUsage=critical,digitalSignature", "extendedKeyUsage=serverAuth"]
        authority = ["-subj", "/CN=bench authority", "-keyout", ca, "-out", self.authority]
        leaf = ["-subj", f"/CN={REAL_HOST}", "-keyout", self.directory / "provider.key", "-out", self.directory / "provider.pem"]
        signed = ["-CA", self.authority, "-CAkey", ca]
        for options, extensions in [(authority, ca_extensions), ([*leaf, *signed], leaf_extensions)]:
            added = [option for extension in extensions for option in ("-addext", extension)]
            subprocess.run(["openssl", "req", *key, *options, *added], check=True, capture_output=True)


class Mitmproxy:
    """mitmproxy with an add-on that does what Sidekey does to a request."""

    def __init__(self, directory: Path, secure: SecureUpstream, handle: str):
        self.directory = directory / "mitmproxy"
        self.directory.mkdir()
        self.port, self.secure = free_port(), secure
        self.authority = self.directory / "mitmproxy-ca-cert.pem"
        self.injection = self.directory / "injection.json"
        self.injection.write_text(json.dumps({"tokens": {handle: TOKEN}, "upstream_port": secure.port}))

    @contextlib.contextmanager
    def running(self, core: int) -> Iterator[Program]:
        options = [f"confdir={self.directory}", "listen_host=127.0.0.1", f"listen_port={self.port}"]
        options += [f"ssl_verify_upstream_trusted_ca={self.secure.authority}"]
        settings = [argument for option in options for argument in ("--set", option)]
        add_on = Path(__file__).with_name("mitmproxy_injection.py")
        command = [binary("MITMDUMP_BIN"), "--quiet", *settings, "--scripts", add_on]
        environment = {"PATH": os.environ["PATH"], "INJECTION": str(self.injection)}
        with running(command, self.directory / "log", core=core, environment=environment) as program:
            program.wait_until(lambda: self.authority.exists() and accepts(self.port), seconds=60)
            yield program


@contextlib.contextmanager
def bare(directory: Path, upstream_port: int, core: int) -> Iterator[tuple[Program, int]]:
    port = free_port()
    command = [binary("BARE_BIN"), f"127.0.0.1:{port}", f"127.0.0.1:{upstream_port}"]
    with running(command, directory / "bare.log", core=core) as program:
        program.wait_until(lambda: answers(port))
        yield program, port


class Simulator:
    """A simulated QuickBooks that keeps a ledger."""

    def __init__(self, url: str):
        self.url = url

    def control(self, method: str, path: str, content: object = None) -> dict:
        status, _, body = request(method, f"{self.url}/control/{path}", body=json.dumps(content))
        if status >= 300:
            raise Failed(f"the simulator answered {status} to {method} {path}: {body}")
        return json.loads(body)

    def give_long_tokens(self) -> None:
        """From now on all connections get `TOKEN`."""
        fault = {"profile": "quickbooks", "endpoint": "code", "kind": "body_patch", "set": {"access_token": TOKEN}}
        self.control("POST", "faults", fault)

    def counters(self) -> dict:
        return self.control("GET", "ledger")["profiles"]["quickbooks"]["counters"]


@contextlib.contextmanager
def simulator(directory: Path) -> Iterator[Simulator]:
    log = directory / "simulator.log"
    with running([binary("SIMULATOR_BIN")], log) as program:
        program.wait_until(lambda: log.exists() and b"\n" in log.read_bytes())
        yield Simulator(json.loads(log.read_text().splitlines()[0])["url"])


class Sidekey:
    """An installation in a directory of its own."""

    def __init__(self, directory: Path, simulated: Simulator, api: str, more: str = "", egress: str = ""):
        """`api` is what the provider file says of the place of the API, `more` are further tables, `egress` is more of that."""
        self.directory = directory
        self.config = directory / "sidekey.toml"
        self.public, self.egress, self.metrics = free_port(), free_port(), free_port()
        self.environment = {"PATH": os.environ["PATH"], "QUICKBOOKS_CLIENT_SECRET": CLIENT_SECRET}
        providers = directory / "providers"
        providers.mkdir(parents=True)
        (providers / "quickbooks.toml").write_text(PROVIDER.format(simulator=simulated.url, api=api))
        ports = {"public": self.public, "egress": self.egress, "metrics": self.metrics}
        self.config.write_text(SIDEKEY.format(**ports, more_egress=egress) + more)
        key = directory / "sidekey.key"
        key.touch(mode=0o600)
        key.write_text(self._command("keys", "generate"))

    def start(self, core: int | None = None) -> Program:
        command = [binary("SIDEKEY_BIN"), "serve", "--config", self.config]
        return Program(command, self.directory / "sidekey.log", core=core, environment=self.environment)

    def is_ready(self) -> bool:
        return answers(self.metrics, "/readyz")

    @contextlib.contextmanager
    def running(self, core: int | None = None) -> Iterator[Program]:
        program = self.start(core)
        try:
            program.wait_until(self.is_ready)
            yield program
        finally:
            program.stop()

    def handle(self) -> str:
        """A new handle for the subject `bench`."""
        return self._command("handle", "issue", "--subject", "bench", "--config", str(self.config)).strip()

    def authority(self) -> Path:
        """A file with what its clients trust."""
        status, _, body = request("GET", f"http://127.0.0.1:{self.egress}/.well-known/sidekey/ca.pem")
        if status != 200:
            raise Failed(f"Sidekey does not say what is to be trusted: {status} {body}")
        file = self.directory / "ca.pem"
        file.write_text(body)
        return file

    def connect(self) -> None:
        """Connects the subject `bench`, as a browser would."""
        config = str(self.config)
        link = json.loads(self._command("connect", "quickbooks", "--subject", "bench", "--json", "--config", config))
        _, headers, _ = request("POST", link["url"])
        cookie = headers["set-cookie"].split(";")[0]
        _, headers, _ = request("GET", headers["location"])
        status, headers, page = request("GET", headers["location"], headers={"cookie": cookie})
        if status != 303:
            raise Failed(f"the connection could not be made: {status} {headers}\n{page}")

    def _command(self, *arguments: str) -> str:
        command = [binary("SIDEKEY_BIN"), *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode != 0:
            raise Failed(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout


def request(method: str, url: str, body: str = "", headers: dict | None = None) -> tuple[int, dict[str, str], str]:
    """One request, redirects not followed: status, headers by lower-case name, body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body=body or None, headers=headers or {})
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return response.status, fields, response.read().decode()
    finally:
        connection.close()
