"""Alert rules are read by Prometheus' own tool, and fire when they should."""

import subprocess
from pathlib import Path

MONITORING = Path(__file__).parent.parent / "examples" / "monitoring"


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_alert_rules_are_sound() -> None:
    assert "15 rules found" in promtool("check", "rules", "alerts.yaml")


def test_each_alert_fires_when_it_should_and_not_otherwise() -> None:
    tested = {line.split()[-1].rstrip(",}") for line in read("alerts.test.yaml") if "alertname:" in line and "exp_alerts: []" not in line}
    declared = {line.split()[-1] for line in read("alerts.yaml") if "- alert:" in line}
    assert tested == declared, "an alert that was never seen to fire may never do"
    promtool("test", "rules", "alerts.test.yaml")


def read(name: str) -> list[str]:
    return (MONITORING / name).read_text().splitlines()
