"""What Prometheus and Grafana are given asks for metrics and labels that there are, and alarms when it should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase

from vault.metrics import Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus/strongroom.rules.yml"
DASHBOARD = DEPLOY / "grafana/strongroom.json"
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def series() -> dict[str, set[str]]:
    """The labels of each series that there is, but those that Prometheus adds."""
    found: dict[str, set[str]] = {"strongroom_workers": set(), "strongroom_worker_deaths_total": set()}
    for family in vars(Metrics()).values():
        if isinstance(family, MetricWrapperBase):
            for suffix in SUFFIXES[family._type]:
                found[family._name + suffix] = set(family._labelnames)
    return found


def queries() -> list[str]:
    """What is asked of the vault's own series."""
    rules = re.findall(r"expr: (.*?)\n +(?:for|labels):", RULES.read_text(), re.DOTALL)
    panels = json.loads(DASHBOARD.read_text())["panels"]
    shown = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [query for query in (*rules, *shown) if "ALERTS" not in query]


@pytest.mark.parametrize("query", queries())
def test_a_query_names_series_and_labels_that_there_are(query: str) -> None:
    there_are = series()
    named = set(re.findall(r"strongroom_\w+", query))
    assert named
    assert named <= set(there_are)
    asked = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)\s*\"", query))
    for by in re.findall(r"by \(([^)]*)\)", query):
        asked.update(label.strip() for label in by.split(","))
    assert asked <= {"instance", "le"}.union(*(there_are[name] for name in named))


def test_every_metric_is_looked_at() -> None:
    looked_at = set(re.findall(r"strongroom_\w+", DASHBOARD.read_text() + RULES.read_text()))
    ends = re.compile("_(total|bucket|sum|count)$")
    metrics = {ends.sub("", name) for name in series()}
    # What the tenants of the configuration have wrapped: the most used of all is shown.
    assert metrics - {ends.sub("", name) for name in looked_at} == {"strongroom_kek_wraps"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH")
def test_the_rules_alarm_when_they_should_and_only_then() -> None:
    for command in (
        ["check", "rules", "strongroom.rules.yml"],
        ["test", "rules", "strongroom.rules.test.yml"],
    ):
        done = subprocess.run(
            ["promtool", *command], cwd=RULES.parent, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
