"""schemathesis: tries an API as its description says it, and in ways that it forbids."""

import json
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.toml import toml

PROGRAM = Path(__file__).parent.parent / ".venv-api/bin/schemathesis"

# By path and method, every status that was answered.
Answered = dict[tuple[str, str], set[int]]


def try_api(
    document: dict[str, Any], url: str, key: str, headers: dict[str, str], directory: Path, checks: list[str]
) -> Answered:
    """Tries everything; fails if a check does. Each value that a path may have is in its description."""
    description, archive, config = (directory / name for name in ("openapi.json", "trial.har", "schemathesis.toml"))
    description.write_text(json.dumps(document))
    # Not as a header for all requests: some are to go out without it.
    config.write_text(toml({"auth.openapi.api_key": {"bearer": key}}))
    command = [
        str(PROGRAM),
        f"--config-file={config}",
        "run",
        str(description),
        f"--url={url}",
        "--phases=examples,coverage,fuzzing",
        "--max-examples=20",
        "--seed=20261122",
        "--generation-database=none",
        "--max-redirects=0",
        "--continue-on-failure",
        "--no-shrink",
        "--no-color",
        "--suppress-health-check=all",
        "--warnings=off",
        f"--checks={','.join(checks)}",
        "--report=har",
        f"--report-har-path={archive}",
        *(f"--header={name}:{value}" for name, value in headers.items()),
    ]
    done = subprocess.run(command, cwd=directory, capture_output=True, check=False, text=True, timeout=90)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return answered(document, json.loads(archive.read_text()))


def answered(document: dict[str, Any], archive: dict[str, Any]) -> Answered:
    """Which operation answered what."""
    found: Answered = defaultdict(set)
    for entry in archive["log"]["entries"]:
        path = urlsplit(entry["request"]["url"]).path
        for template in document["paths"]:
            if fits(template, path):
                found[template, entry["request"]["method"].lower()].add(entry["response"]["status"])
    return found


def fits(template: str, path: str) -> bool:
    wanted, there = template.split("/"), path.split("/")
    return len(wanted) == len(there) and all(
        part.startswith("{") or part == other for part, other in zip(wanted, there, strict=True)
    )
