"""A pod, run from its manifests without Kubernetes.

What a kubelet would do with them is done here with namespaces: the containers share a network and have, each for
itself, a user, a root that cannot be written, capabilities, an environment and mounts. Config maps, secrets and volumes
get the owners and modes that a kubelet gives them. Init containers run in order; those that restart always are started
and go on.
"""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.image import Image
from harness.namespace import Namespace
from harness.program import Program

Manifest = dict[str, Any]

# What every container has that is not built from scratch: the programs of this machine.
USUAL_ROOT = ["--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/sbin", "/sbin"]
USUAL_ROOT += ["--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"]


@dataclass(frozen=True)
class Surroundings:
    """What is outside the pod: its network, its name servers, and what the cluster keeps."""

    namespace: Namespace
    resolv_conf: str
    # Files by name, by the name of the secret.
    secrets: Mapping[str, Mapping[str, str]]
    # Roots by the name of the image, without its tag. Others get the programs of this machine.
    images: Mapping[str, Image]
    # Where persistent volumes are, by the name of the claim.
    volumes: Path


class Pod:
    """The pod of a deployment. `instead` has, by container, what runs in the place of an image that is not here."""

    def __init__(self, manifests: list[Manifest], around: Surroundings, instead: Mapping[str, list[str]]):
        [deployment] = [manifest for manifest in manifests if manifest["kind"] == "Deployment"]
        self.spec: Manifest = deployment["spec"]["template"]["spec"]
        self.config_maps = {one["metadata"]["name"]: one["data"] for one in manifests if one["kind"] == "ConfigMap"}
        self.around = around
        self.instead = instead
        self.programs: dict[str, Program] = {}
        self._temporary = tempfile.TemporaryDirectory(prefix="pod-")
        self.directory = Path(self._temporary.name)
        self.directory.chmod(0o755)
        self.group = int(self.spec["securityContext"]["fsGroup"])
        self._volumes = {volume["name"]: self._volume(volume) for volume in self.spec["volumes"]}
        self._write_files_of_the_kubelet()
        for sysctl in self.spec["securityContext"].get("sysctls", []):
            around.namespace.set(sysctl["name"], sysctl["value"])

    def start(self) -> Iterator[str]:
        """Goes through the containers as a kubelet does, and says each time which one has ended or been started."""
        for container in self.spec["initContainers"]:
            if container.get("restartPolicy") == "Always":
                self._start(container)
            else:
                done = self.run(container["name"])
                assert done.returncode == 0, f"{container['name']}: {done.stdout}{done.stderr}"
            yield container["name"]
        for container in self.spec["containers"]:
            self._start(container)
            yield container["name"]

    def stop(self) -> None:
        """Containers first, then sidecars, the last one first. Whoever dies of the signal is well too."""
        sidecars = [one["name"] for one in self.spec["initContainers"] if one["name"] in self.programs]
        others = [name for name in self.programs if name not in sidecars]
        for name in [*others, *reversed(sidecars)]:
            process = self.programs.pop(name).process
            # bwrap waits for the program, and passes no signal on.
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            for child in map(int, children):
                os.kill(child, signal.SIGTERM)
            process.wait(timeout=30)

    def close(self) -> None:
        self.stop()
        self._temporary.cleanup()

    def run(self, container: str, command: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        """Runs what the container is for to its end, or another command in it, as `kubectl exec` does."""
        described = self.container(container)
        starter = self._starter(described)
        with self.around.namespace.inside():
            return subprocess.run(
                [*starter, *(command or self._command(described))],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )

    def container(self, name: str) -> Manifest:
        everyone = [*self.spec["initContainers"], *self.spec["containers"]]
        [container] = [container for container in everyone if container["name"] == name]
        return dict(container)

    def _start(self, container: Manifest) -> None:
        command = [*self._starter(container), *self._command(container)]
        with self.around.namespace.inside():
            log = self.directory / f"{container['name']}.log"
            self.programs[container["name"]] = Program(command, log, {"PATH": os.environ["PATH"]})

    def _command(self, container: Manifest) -> list[str]:
        image = self._image(container)
        if image is None:
            return list(self.instead.get(container["name"]) or container["command"])
        # A command replaces the entry point and its arguments.
        entrypoint = container.get("command") or image.entrypoint
        return [*entrypoint, *(container.get("args") or ([] if "command" in container else image.command))]

    def _starter(self, container: Manifest) -> list[str]:
        """What starts a program in the container; to be followed by the program."""
        context = {**self.spec["securityContext"], **container["securityContext"]}
        user, group = int(context["runAsUser"]), int(context.get("runAsGroup", 0))
        assert context["runAsNonRoot"] is (user != 0), "a kubelet would refuse to start it"
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
        assert context["capabilities"]["drop"] == ["ALL"] and context["seccompProfile"]["type"] == "RuntimeDefault"
        capabilities = [name.lower() for name in context["capabilities"].get("add", [])]
        image = self._image(container)
        places = {place: self.directory / Path(place).name for place in ("/etc/hosts", "/etc/resolv.conf")}
        mounts = {mount["mountPath"]: self._volumes[mount["name"]] for mount in container["volumeMounts"]}
        writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        if image:
            image.make_places({**places, **mounts})
        box = [
            "bwrap",
            "--die-with-parent",
            "--clearenv",
            *(["--ro-bind", str(image.root), "/"] if image else USUAL_ROOT),
        ]
        box += ["--dev", "/dev", "--proc", "/proc"]
        for place, source in {**places, **mounts}.items():
            # What bwrap makes by itself is its own alone.
            for parent in [] if image else reversed(Path(place).parents[:-1]):
                box += ["--perms", "0755", "--dir", str(parent)]
            box += ["--bind" if place in writable else "--ro-bind", str(source), place]
        environment = {"PATH": "/usr/sbin:/usr/bin:/bin", **(image.environment if image else {})}
        environment |= {variable["name"]: variable["value"] for variable in container.get("env", [])}
        for name, value in environment.items():
            box += ["--setenv", name, value]
        box += ["--remount-ro", "/"]
        bounds = ",".join(["-all", *(f"+{capability}" for capability in capabilities)])
        become = ["setpriv", f"--reuid={user}", f"--regid={group}", f"--groups={group},{self.group}"]
        become += [f"--bounding-set={bounds}", f"--inh-caps={bounds}", "--no-new-privs"]
        if image is None:
            return [*box, "--", *become]
        # `setpriv` is not in there: first another user, who then needs a namespace of users for the mounts. Its number
        # stays.
        assert not capabilities
        return [*become, *box[:1], "--unshare-user", "--cap-drop", "ALL", *box[1:], "--"]

    def _image(self, container: Manifest) -> Image | None:
        return self.around.images.get(container["image"].rpartition(":")[0])

    def _volume(self, volume: Manifest) -> Path:
        place = self.directory / "volumes" / volume["name"]
        if "configMap" in volume:
            return self._projected(place, self.config_maps[volume["configMap"]["name"]], 0o644)
        if "secret" in volume:
            files = self.around.secrets[volume["secret"]["secretName"]]
            projected = self._projected(place, files, volume["secret"]["defaultMode"])
            self._give_to_group(projected, 0o440)
            return projected
        if "persistentVolumeClaim" in volume:
            place = self.around.volumes / volume["persistentVolumeClaim"]["claimName"]
        place.mkdir(parents=True, exist_ok=True)
        is_given = place.stat().st_gid == self.group and place.stat().st_mode & 0o2770 == 0o2770
        if self.spec["securityContext"].get("fsGroupChangePolicy", "Always") == "Always" or not is_given:
            self._give_to_group(place, 0o660)
        return place

    def _projected(self, place: Path, files: Mapping[str, str], mode: int) -> Path:
        """As a kubelet writes them: a directory that can be exchanged at once, and links into it."""
        data = place / "..2026_11_22"
        data.mkdir(parents=True)
        (place / "..data").symlink_to(data.name)
        for name, text in files.items():
            (data / name).write_text(text)
            (data / name).chmod(mode)
            (place / name).symlink_to(f"..data/{name}")
        return place

    def _give_to_group(self, place: Path, mode: int) -> None:
        for path in [place, *place.rglob("*")]:
            if not path.is_symlink():
                os.chown(path, -1, self.group)
                path.chmod(path.stat().st_mode | mode | (0o2110 if path.is_dir() else 0))

    def _write_files_of_the_kubelet(self) -> None:
        aliases = [f"{alias['ip']} {' '.join(alias['hostnames'])}\n" for alias in self.spec.get("hostAliases", [])]
        (self.directory / "hosts").write_text("".join(["127.0.0.1 localhost\n::1 localhost\n", *aliases]))
        (self.directory / "resolv.conf").write_text(self.around.resolv_conf)
