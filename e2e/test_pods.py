"""The manifests in `examples/kubernetes` are sound, and the pods that they describe do what is said of them.

They are rendered by kubectl, held against Kubernetes' own schemas, and run (`harness/pod.py`): with the image that the
Dockerfile describes, the users, mounts and rules of the manifests, and the providers in another network behind a cable.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import kubernetes_validate
import pytest
import yaml

from harness import name_server
from harness.browser import Browser, Person
from harness.image import Image, sidekey_image
from harness.namespace import Namespace, cable
from harness.pod import Manifest, Pod, Surroundings
from harness.polling import wait_until
from harness.program import Program
from harness.sidekey import binary
from harness.simulator import Hosts, Simulator

E2E = Path(__file__).parent
KUBERNETES = E2E.parent / "examples" / "kubernetes"
KUBECTL = E2E / ".built/kubectl"

OVERLAYS = ["base", "overlays/fenced", "overlays/host-alias", "overlays/redirect", "separate-pods"]

# The oldest Kubernetes in which all of it works (`preStop.sleep`), and the newest whose schemas are at hand.
VERSIONS = ["1.30", "1.37"]

POD, POD6 = "10.77.0.1", "fd77::1"
OUTSIDE, OUTSIDE6 = "10.77.0.2", "fd77::2"


def rendered(overlay: str) -> list[Manifest]:
    """What `kubectl apply -k` would apply."""
    command = [KUBECTL, "kustomize", KUBERNETES / overlay]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_are_what_kubernetes_expects(overlay: str) -> None:
    manifests = rendered(overlay)
    assert len(manifests) >= 5
    for manifest in manifests:
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_a_manifest_that_is_not_is_found() -> None:
    [deployment] = [manifest for manifest in rendered("base") if manifest["kind"] == "Deployment"]
    deployment["spec"]["template"]["spec"]["initContainers"][0]["restartpolicy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[0], strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_all_containers_are_confined(overlay: str) -> None:
    for deployment in (manifest for manifest in rendered(overlay) if manifest["kind"] == "Deployment"):
        spec = deployment["spec"]["template"]["spec"]
        containers = [*spec.get("initContainers", []), *spec["containers"]]
        users = {}
        for container in containers:
            context = {**spec["securityContext"], **container["securityContext"]}
            assert context["readOnlyRootFilesystem"] is True, container["name"]
            assert context["allowPrivilegeEscalation"] is False, container["name"]
            assert context["capabilities"]["drop"] == ["ALL"], container["name"]
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
            added = ["NET_ADMIN"] if container["name"] == "fence" else []
            assert context["capabilities"].get("add", []) == added, container["name"]
            assert set(container["resources"]) == {"requests", "limits"}, container["name"]
            users[container["name"]] = context["runAsUser"]
            assert ":" in container["image"], f"{container['name']}: which version?"
        # Whoever is Sidekey's user passes the fence.
        assert users.get("mcp-server") != users.get("sidekey")
        assert spec["automountServiceAccountToken"] is False
        # A rule of a pod that has the network of its node would be the node's.
        assert "hostNetwork" not in spec and "shareProcessNamespace" not in spec


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_store_is_never_two_pods_and_a_stop_waits_for_all_that_is_under_way(overlay: str) -> None:
    for deployment in (manifest for manifest in rendered(overlay) if manifest["kind"] == "Deployment"):
        spec = deployment["spec"]["template"]["spec"]
        [*sidekeys] = [
            one for one in [*spec.get("initContainers", []), *spec["containers"]] if one["name"] == "sidekey"
        ]
        if not sidekeys:
            continue
        assert deployment["spec"]["replicas"] == 1
        assert deployment["spec"]["strategy"] == {"type": "Recreate"}
        assert spec["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
        pauses = [
            one["lifecycle"]["preStop"]["sleep"]["seconds"]
            for one in [*spec.get("initContainers", []), *spec["containers"]]
            if "lifecycle" in one
        ]
        # docs/operations.md, "Stop": timeouts.drain, timeouts.token, five seconds.
        assert spec["terminationGracePeriodSeconds"] >= sum(pauses) + 20 + 60 + 5


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_sidekey_takes_the_configuration(overlay: str, tmp_path: Path) -> None:
    for text in configurations(overlay):
        done = check(text, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "https://sidekey.example.com/callback/notion" in done.stdout


def test_several_pods_cannot_share_one_subject(tmp_path: Path) -> None:
    [text] = configurations("separate-pods")
    done = check(text.replace("[egress]\n", '[egress]\nsubject = "org-42"\n'), tmp_path)
    assert done.returncode == 2
    assert "egress.subject" in done.stderr, done.stderr


def configurations(overlay: str) -> list[str]:
    found = [
        one["data"]["sidekey.toml"]
        for one in rendered(overlay)
        if one["kind"] == "ConfigMap" and "sidekey.toml" in one["data"]
    ]
    assert found
    return found


def check(configuration: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """What `sidekey check` says of it, with secrets as they are mounted."""
    secrets = directory / "secrets"
    secrets.mkdir(exist_ok=True)
    for name, content in mounted_secrets("a secret").items():
        (secrets / name).write_text(content)
        (secrets / name).chmod(0o440)
    file = directory / "sidekey.toml"
    file.write_text(configuration.replace("/run/secrets/sidekey", str(secrets)))
    return subprocess.run([binary(), "check", file], capture_output=True, text=True, check=False)


def mounted_secrets(client_secret: str) -> dict[str, str]:
    key = subprocess.run([binary(), "keys", "generate"], capture_output=True, text=True, check=True).stdout
    return {"sidekey.key": key, "notion.secret": client_secret}


@dataclass
class Cluster:
    """A pod's network, and what is outside of it: providers and a name server."""

    pod: Namespace
    outside: Namespace
    simulator: Simulator
    names: Program
    image: Image
    directory: Path

    def changed(self, text: str) -> str:
        """A configuration of the examples with what is different here: no TLS in front, other roots for providers."""
        text = text.replace("https://sidekey.example.com", "http://127.0.0.1:8700").replace(
            "0.0.0.0:8700", "127.0.0.1:8700"
        )
        text = text.replace("the integration's id", self.simulator.client_id("notion"))
        return text.replace("[egress]\n", '[egress]\nextra_ca = "/run/secrets/sidekey/companies.pem"\n')

    def pod_of(self, overlay: str, user: int | None = None, **context: Any) -> Pod:
        """`context` goes before what the manifests say of all containers."""
        manifests = rendered(overlay)
        for manifest in manifests:
            if manifest["kind"] == "ConfigMap" and "sidekey.toml" in manifest["data"]:
                manifest["data"]["sidekey.toml"] = self.changed(manifest["data"]["sidekey.toml"])
            if manifest["kind"] == "Deployment":
                spec = manifest["spec"]["template"]["spec"]
                spec["securityContext"].update(context)
                if user is not None:
                    spec["initContainers"][0]["securityContext"].update(runAsUser=user, runAsGroup=user)
        around = Surroundings(
            namespace=self.pod,
            resolv_conf=f"search default.svc.cluster.local\nnameserver {OUTSIDE}\noptions ndots:5\n",
            secrets={"sidekey": self._secrets()},
            images={"registry.example.com/sidekey": self.image},
            volumes=self.directory / "volumes",
        )
        return Pod(
            manifests, around, {"mcp-server": ["/usr/bin/python3", "-c", (E2E / "probes/inhabitant.py").read_text()]}
        )

    def _secrets(self) -> dict[str, str]:
        kept = self.directory / "secrets.json"
        if not kept.exists():
            secrets = mounted_secrets(self.simulator.client_secret("notion"))
            kept.write_text(json.dumps({**secrets, "companies.pem": self.simulator.hosts.ca.read_text()}))
        secrets: dict[str, str] = json.loads(kept.read_text())
        return secrets


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if os.geteuid() != 0:
        pytest.skip("networks and users of a pod's own take root")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cluster-")))
        directory.chmod(0o755)
        pod, outside = (stack.enter_context(closing(Namespace())) for _ in range(2))
        cable(pod, outside)
        pod.add_addresses("eth0", f"{POD}/24", f"{POD6}/64")
        outside.add_addresses("eth0", f"{OUTSIDE}/24", f"{OUTSIDE6}/64")
        # Everything else is outside as well.
        pod.ip("route", "add", "default", "via", OUTSIDE)
        pod.ip("-6", "route", "add", "default", "via", OUTSIDE6)
        with outside.inside():
            ca = directory / "companies.pem"
            command = [os.environ["SIMULATOR_BIN"], "--hosts-listen", "[::]:443", "--hosts-ca", str(ca)]
            program = Program(command, directory / "simulator.log", os.environ)
            stack.callback(program.stop)
            announced = program.announced()
            hosts = announced["hosts"]["names"]
            names = json.dumps(dict.fromkeys(hosts, [OUTSIDE, OUTSIDE6]))
            script = [sys.executable, name_server.__file__, OUTSIDE, names]
            named = Program(script, directory / "names.log", os.environ)
            stack.callback(named.process.wait)
            stack.callback(named.process.kill)
            named.announced()
            simulator = stack.enter_context(closing(Simulator(announced["url"], Hosts("", ca, hosts))))
            root = directory / "root"
            root.mkdir()
            root.chmod(0o755)
            yield Cluster(pod, outside, simulator, named, sidekey_image(root), directory)


class Neighbour:
    """The MCP server's place in the pod: what it tries there."""

    def __init__(self, cluster: Cluster):
        def call() -> socket.socket | None:
            with cluster.pod.inside():
                try:
                    return socket.create_connection(("127.0.0.1", 3000), timeout=20)
                except ConnectionRefusedError:
                    return None

        self.socket = wait_until(call, "the server in the pod listens")
        self.lines = self.socket.makefile()

    def close(self) -> None:
        self.lines.close()
        self.socket.close()

    def tries(self, *words: str | int) -> dict[str, Any]:
        self.socket.sendall(f"{' '.join(map(str, words))}\n".encode())
        answer: dict[str, Any] = json.loads(self.lines.readline())
        return answer


class TravellingBrowser(Browser):
    """A browser for which Sidekey's page is in the pod, and all else outside."""

    def __init__(self, person: Person, cluster: Cluster):
        super().__init__(person)
        self.cluster = cluster

    def _request(self, method: str, url: str, *how: Any, **more: Any) -> httpx2.Response:
        there = self.cluster.pod if url.startswith("http://127.0.0.1:8700/") else self.cluster.outside
        with there.inside():
            return super()._request(method, url, *how, **more)


def sidekey(pod: Pod, *arguments: str) -> str:
    """As `kubectl exec -c sidekey -- sidekey ...`."""
    done = pod.run("sidekey", ["/usr/local/bin/sidekey", *arguments])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass
class Inhabited:
    """A pod that runs, in which alice is connected."""

    cluster: Cluster
    pod: Pod
    server: Neighbour
    handle: str


def inhabited(cluster: Cluster, overlay: str, stack: ExitStack, user: int | None = None) -> Inhabited:
    pod = stack.enter_context(closing(cluster.pod_of(overlay, user)))
    for container in pod.start():
        if container == "sidekey":
            wait_until(lambda: probe(pod, "startupProbe"), "Sidekey is ready")
    assert probe(pod, "readinessProbe") and probe(pod, "livenessProbe")
    link = json.loads(sidekey(pod, "connect", "notion", "--subject", "alice", "--json"))["url"]
    with TravellingBrowser(cluster.simulator.person("alice"), cluster) as browser:
        assert browser.dance(link).status_code == 200
    handle = sidekey(pod, "handle", "issue", "--subject", "alice").strip()
    server = stack.enter_context(closing(Neighbour(cluster)))
    return Inhabited(cluster, pod, server, handle)


def probe(pod: Pod, kind: str) -> bool:
    """What the kubelet finds out about Sidekey's container."""
    pod.programs["sidekey"].assert_running()
    described = pod.container("sidekey")[kind]
    return pod.run("sidekey", described["exec"]["command"]).returncode == 0


@pytest.fixture
def stack(cluster: Cluster) -> Iterator[ExitStack]:
    cluster.simulator.reset()
    with ExitStack() as stack:
        yield stack
    # Each test begins with an empty volume.
    shutil.rmtree(cluster.directory / "volumes")
    # A pod takes its rules along.
    with cluster.pod.inside():
        subprocess.run(["nft", "flush", "ruleset"], check=True)


def assert_fenced(here: Inhabited) -> None:
    """The server gets nowhere, and is told so at once."""
    for attempt in (
        ("connect", OUTSIDE, 8443),
        ("connect", OUTSIDE6, 8443),
        ("connect", OUTSIDE, 80),
        ("connect", "192.0.2.1", 22),
    ):
        answer = here.server.tries(*attempt)
        assert answer.get("error") == "ConnectionRefusedError", (attempt, answer)
        assert answer["ms"] < 2_000, (attempt, answer)
    for attempt in (("send", OUTSIDE, 123), ("send", OUTSIDE6, 123), ("send", "192.0.2.1", 53)):
        answer = here.server.tries(*attempt)
        assert answer.get("error") in ("PermissionError", "OSError"), (attempt, answer)
        assert answer["ms"] < 2_000, (attempt, answer)


def test_without_the_fence_it_could_leave(cluster: Cluster, stack: ExitStack) -> None:
    """What the other tests refuse is possible in this network: otherwise they would show nothing."""
    here = inhabited(cluster, "base", stack)
    assert here.server.tries("connect", OUTSIDE, 443)["status"] == "connected"
    assert here.server.tries("connect", OUTSIDE6, 443)["status"] == "connected"
    assert (found := here.server.tries("resolve", "api.notion.com")).get("addresses") == [OUTSIDE, OUTSIDE6], found


def test_only_sidekey_leaves_the_fenced_pod(cluster: Cluster, stack: ExitStack) -> None:
    here = inhabited(cluster, "overlays/fenced", stack)
    answer = here.server.tries("get", "http://127.0.0.1:8701/notion/v1/users/me", here.handle)
    assert answer["status"] == 200, answer
    assert_fenced(here)
    for address in (OUTSIDE, OUTSIDE6):
        refused = here.server.tries("connect", address, 443)
        assert (refused.get("error"), refused["ms"] < 2_000) == ("ConnectionRefusedError", True), refused
    assert here.server.tries("resolve", "api.notion.com")["error"] == "gaierror"
    [grant] = cluster.simulator.grants("notion")
    assert {call.grant_id for call in cluster.simulator.accepted_calls("notion")} == {grant["id"]}


def test_a_host_alias_leads_a_server_to_sidekey_that_knows_no_other_way(cluster: Cluster, stack: ExitStack) -> None:
    here = inhabited(cluster, "overlays/host-alias", stack)
    assert here.server.tries("resolve", "api.notion.com")["addresses"] == ["127.0.0.1"]
    assert_injected(here)
    assert_fenced(here)
    # It is led to Sidekey, and Sidekey not to itself: it asked the name server outside.
    assert "api.notion.com" in cluster.names.output()
    # A provider that has no alias does not exist here.
    assert here.server.tries("get", "https://api.github.com/user", here.handle)["error"] == "gaierror"


def test_redirected_calls_get_the_token_of_whose_handle_they_carry(cluster: Cluster, stack: ExitStack) -> None:
    here = inhabited(cluster, "overlays/redirect", stack)
    # Where the name leads does not matter; over IPv6 it is the same.
    assert (found := here.server.tries("resolve", "api.notion.com")).get("addresses") == [OUTSIDE, OUTSIDE6], found
    assert_injected(here)
    for family in (OUTSIDE, OUTSIDE6):
        assert here.server.tries("connect", family, 443)["status"] == "connected"
    assert_fenced(here)
    # Who is no provider of Sidekey's is not reached in this way either.
    answer = here.server.tries("get", "https://api.github.com/user", here.handle)
    assert answer.get("error"), answer
    assert cluster.simulator.counters("github")["api_calls"] == 0
    # The pod's own name server may be asked, and no other.
    assert here.server.tries("send", OUTSIDE, 53)["status"] == "sent"


def assert_injected(here: Inhabited) -> None:
    """A call to the provider's own address arrives there with alice's token, and its answer comes back."""
    answer = here.server.tries("get", "https://api.notion.com/v1/users/me", here.handle)
    assert answer["status"] == 200, answer
    [grant] = here.cluster.simulator.grants("notion")
    [call] = here.cluster.simulator.accepted_calls("notion")
    assert (call.grant_id, call.request) == (grant["id"], "GET /v1/users/me")
    # The handle of nobody is nobody's.
    unknown = here.server.tries("get", "https://api.notion.com/v1/users/me", f"sidekey_h_{'A' * 43}")
    assert unknown["status"] == 401, unknown
    assert len(here.cluster.simulator.accepted_calls("notion")) == 1


def test_what_is_restarted_finds_its_volume_as_it_left_it(cluster: Cluster, stack: ExitStack) -> None:
    """The group of a volume is set once. Were it set at each start, the store would be open to others."""
    here = inhabited(cluster, "base", stack)
    here.pod.close()
    again = cluster.pod_of("base")
    stack.enter_context(closing(again))
    for container in again.start():
        if container == "sidekey":
            wait_until(lambda: probe(again, "startupProbe"), "Sidekey is ready")
    [connection] = json.loads(sidekey(again, "status", "--json"))["connections"]
    assert (connection["subject"], connection["state"]) == ("alice", "active")
    again.stop()
    assert again.run("sidekey", again.container("sidekey")["livenessProbe"]["exec"]["command"]).returncode == 1
    always = cluster.pod_of("base", fsGroupChangePolicy="Always")
    stack.enter_context(closing(always))
    done = always.run("sidekey")
    assert done.returncode == 1 and "so others may use it" in done.stderr, done.stderr


def test_the_image_serves_as_anybody_on_a_root_that_it_cannot_write(cluster: Cluster, stack: ExitStack) -> None:
    """As platforms do that give each project a user of its own; 65534 has an entry in no file of the image."""
    here = inhabited(cluster, "base", stack, user=65534)
    process = here.pod.programs["sidekey"].process.pid
    [child] = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    status = dict(line.split(":\t") for line in Path(f"/proc/{child}/status").read_text().splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["65534"] * 4
    assert {name: int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {
        "CapEff": 0,
        "CapPrm": 0,
        "CapBnd": 0,
    }
    answer = here.server.tries("get", "http://127.0.0.1:8701/notion/v1/users/me", here.handle)
    assert answer["status"] == 200, answer
    for place in ("/new", "/tmp/new", "/etc/sidekey/new", "/home/nonroot/new"):
        done = here.pod.run("sidekey", ["/usr/local/bin/sidekey", "init", place])
        assert done.returncode == 1 and "Read-only file system" in done.stderr, (place, done.stderr)
