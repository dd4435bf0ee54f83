"""The alerting rules that the chart of the control plane ships."""

import re
from typing import Any

import yaml

from tests.charts.rendered import CHARTS

RULES: list[dict[str, Any]] = yaml.safe_load((CHARTS / "control/files/alerts.yaml").read_text())["groups"][0][
    "rules"
]
_NAME = re.compile(r"\b(?:ambit|istio|workload_manager)_[a-z_]+")


def metrics_of_alerts() -> set[str]:
    """Names of all metrics that the rules' expressions contain."""
    return {name for rule in RULES for name in _NAME.findall(rule["expr"])}
