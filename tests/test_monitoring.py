"""Dashboard, alert rules and the operations guide speak of what exists, and leave nothing out."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from bff.metrics import ALERTS
from bff.prometheus import Prometheus
from bff.scrape import OfTheHost

ROOT = Path(__file__).parent.parent
ALERT_RULES = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/dashboard.json"
OPERATIONS = (ROOT / "docs/operations.md").read_text()
BESIDE = {"metrics_ended", "not_started", "sessions_not_counted"}
"""Logged by processes that count nothing."""


def families() -> dict[str, set[str]]:
    """Every metric by the name that a query uses, with its labels."""
    metrics = Prometheus(["/items"])
    metrics.sign_in_failed("x")
    metrics.callback_refused("x")
    metrics.refused("x")
    metrics.registry.register(OfTheHost(lambda: 1))
    found: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found.setdefault(sample.name, set()).update(sample.labels)
    assert "bff_" in generate_latest(metrics.registry).decode()
    return found


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load(ALERT_RULES.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def check(query: str) -> None:
    """Each metric of a query exists, and has the labels that the query selects or groups by."""
    known = families()
    used = re.findall(r"\b(bff_\w+)(?:\{([^}]*)\})?", query)
    for name, selector in used:
        assert name in known, name
        labels = set(re.findall(r"(\w+)\s*=~?\s*\"", selector)) - {"instance"}
        assert labels <= known[name], (name, labels)
    every = set().union(*(known[name] for name, _ in used), {"instance", "le"})
    for grouped in re.findall(r"by \(([^)]*)\)", query):
        assert {label.strip() for label in grouped.split(",")} <= every, grouped


def test_alert_rules() -> None:
    """Each names metrics that exist and says how urgent it is; the guide has a row for each, and no other."""
    for rule in rules():
        check(rule["expr"])
        for event in re.findall(r'event=~?"([^"]*)"', rule["expr"]):
            assert set(event.split("|")) <= set(ALERTS), event
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
    table = OPERATIONS[OPERATIONS.index("## When an alert fires") :].split("\n### ", 1)[0]
    told = [
        name
        for row in re.findall(r"^\| (`BFF[^|]*) \|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    ]
    assert sorted(told) == sorted(rule["alert"] for rule in rules())


def test_the_dashboard() -> None:
    """Its queries name metrics that exist, and every metric is on it."""
    for query in queries():
        check(query)
    shown = " ".join(queries())
    for name in families():
        base = re.sub(r"_(bucket|sum|count)\Z", "", name)
        assert base in shown, base


def test_rules_that_prometheus_accepts() -> None:
    """promtool, where there is one, finds no fault with the rules."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not on PATH; to run this test, install it (Debian: apt install prometheus)")
    done = subprocess.run(
        [program, "check", "rules", str(ALERT_RULES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


WORKERS = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: "bff_workers{{instance='dies'}}", values: "2x120"}}
      - {{series: "bff_workers_started_total{{instance='dies'}}", values: "2+0x60 3+1x60"}}
      - {{series: "bff_workers{{instance='renewed'}}", values: "8x60 16 8x60"}}
      - {{series: "bff_workers_started_total{{instance='renewed'}}", values: "8x60 16x60"}}
    alert_rule_test:
      - {{eval_time: 61m, alertname: BFFWorkersRestarting}}
      - eval_time: 75m
        alertname: BFFWorkersRestarting
        exp_alerts:
          - exp_labels: {{severity: warning, instance: dies}}
            exp_annotations: {{summary: workers of dies come and go}}
"""


def test_workers_that_come_and_go(tmp_path: Path) -> None:
    """They are seen although each is replaced before Prometheus looks again; a reload of all is no alarm."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not on PATH; to run this test, install it (Debian: apt install prometheus)")
    file = tmp_path / "test.yml"
    file.write_text(WORKERS.format(rules=ALERT_RULES))
    done = subprocess.run([program, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_metric_is_documented() -> None:
    """The guide's table names exactly the metrics that exist, with their labels."""
    table = OPERATIONS[OPERATIONS.index("| metric |") :].split("\n\n", 1)[0]
    told: dict[str, set[str]] = {}
    for row in table.splitlines()[2:]:
        for name, labels in re.findall(r"`(bff_\w+)(?:\{([\w,]+)\})?`", row.split("|")[1]):
            told[name] = set(labels.split(",")) if labels else set()
    exist = {
        re.sub(r"_(bucket|sum|count)\Z", "", name): labels - {"le"} for name, labels in families().items()
    }
    assert told == exist


def warnings_of(path: Path) -> set[str]:
    """The events that a module logs as warnings or errors, but for the audit log's."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("warning", "error", "exception", "critical")
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in ("log", "sessions_log")
        ):
            first = node.args[0]
            assert isinstance(first, ast.Constant | ast.Name), f"{path}: an event must be a word"
            found |= {str(first.value)} if isinstance(first, ast.Constant) else set()
    return found


def test_every_line_of_the_audit_log_is_documented() -> None:
    """The guide's section names each event that a module writes to it."""
    section = OPERATIONS[OPERATIONS.index("## The audit log") :].split("\n## ", 1)[0]
    written: set[str] = set()
    for path in (ROOT / "bff").glob("*.py"):
        text = path.read_text()
        if 'log = structlog.get_logger("bff.audit")' in text:
            written |= set(re.findall(r'\blog\.(?:info|warning|error)\(\s*"(\w+)"', text))
            written |= set(re.findall(r'self\._refused\("(\w+)"', text))
    assert len(written) > 8
    assert not written - set(re.findall(r"`(\w+)`", section))


def test_alerts_are_what_the_program_warns_of() -> None:
    """Each warning or error that the code can log is counted, and each that is counted is in the guide."""
    audit = {"sign_in_failed", "session_ended", "sessions_revoked"}
    written: set[str] = set()
    for path in (ROOT / "bff").rglob("*.py"):
        if not {"dev_idp", "resource_api", "devstack", "check"} & set(path.parts):
            written |= warnings_of(path)
    missing = written - audit - BESIDE - set(ALERTS)
    assert not missing
    assert list(ALERTS) == sorted(ALERTS)
    table = OPERATIONS[OPERATIONS.index("### Events that are counted") :].split("\n## ", 1)[0]
    told = [
        event
        for row in re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
        for event in re.findall(r"`(\w+)`", row)
    ]
    assert sorted(told) == sorted(ALERTS)
