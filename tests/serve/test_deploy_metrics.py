"""The Grafana dashboard and Prometheus' rules ask for nothing that the gateway does not say."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from jettison.serve.metrics import Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = re.compile(r"\bjettison_\w+")


def asked_of_rules() -> list[str]:
    groups: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus-rules.yaml").read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def asked_of_dashboard() -> list[str]:
    board = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def said() -> dict[str, set[str]]:
    """Name of each series without its suffix → its labels."""
    registry = Metrics().registry
    found: dict[str, set[str]] = {}
    for collector in registry._collector_to_names:
        name, labels = collector._name, set(collector._labelnames)
        if collector._type == "histogram":
            found.update({f"{name}{suffix}": labels | {"le"} for suffix in ("_bucket", "_count", "_sum")})
        else:
            found[f"{name}_total" if collector._type == "counter" else name] = labels
    return found


@pytest.mark.parametrize("asked", [asked_of_rules, asked_of_dashboard])
def test_every_series_and_label_asked_for_exists(asked: Any) -> None:
    series = said()
    for expression in asked():
        names = set(NAME.findall(expression))
        assert names <= set(series), expression
        known = set().union(*(series[name] for name in names)) | {"job"} if names else set()
        for inside in re.findall(r"\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)\s*=~?", inside)) <= known, expression
        for grouped in re.findall(r"by \(([^)]*)\)", expression):
            assert {label.strip() for label in grouped.split(",")} <= known, expression


def test_recorded_names_used_by_alerts_are_recorded() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus-rules.yaml").read_text())["groups"]
    recorded = {rule["record"] for group in rules for rule in group["rules"] if "record" in rule}
    used = {name for e in asked_of_rules() for name in re.findall(r"jettison:[\w:]+", e)}
    assert used <= recorded


def test_every_kind_of_event_asked_for_is_one_that_is_counted() -> None:
    engine = (DEPLOY.parent / "src/jettison/serve/engine.py").read_text()
    for expression in asked_of_rules():
        for events in re.findall(r'event=~?"([^"]*)"', expression):
            assert all(f'"{event}"' in engine for event in events.split("|"))


def test_panels_do_not_overlap() -> None:
    board = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    cells = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)
