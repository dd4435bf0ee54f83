"""The alerting rules that the chart ships ask for metrics that there are."""

import re
from pathlib import Path

import pytest
import yaml

from ambit.control.metrics import Counters
from ambit.control.stream import ANSWERED
from tests.charts.alerts import RULES, metrics_of_alerts
from tests.charts.rendered import GOLDEN, ROOT


def _metrics() -> set[str]:
    """Names of metrics in the code; counters of nodes are given `_total` where they are printed."""
    found: set[str] = set()
    for path in (ROOT / "src/ambit").rglob("*.py"):
        found.update(re.findall(r'"((?:ambit|istio|workload_manager)_[a-z_]+)"', Path(path).read_text()))
    return found | {f"{each}_total" for each in found}


@pytest.mark.feature("F168")
def test_every_metric_of_an_alert_is_one_of_ours() -> None:
    """That a Prometheus reaches them: `tests/mesh/test_scraping.py`."""
    asked = metrics_of_alerts()
    assert len(asked) >= 10 and asked <= _metrics()


def test_each_alert_says_what_it_means_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert set(rule["annotations"]) == {"summary", "action"}
        assert rule["labels"]["severity"] in ("warning", "critical")


@pytest.mark.feature("F168")
def test_a_rejected_push_has_the_labels_that_the_alert_looks_for() -> None:
    """That the control plane counts one so: `tests/control/test_proxies.py`."""
    (rule,) = (each for each in RULES if each["alert"] == "AmbitConfigurationRejected")
    assert f'{ANSWERED}{{answer="nack"}}' in rule["expr"]
    counters = Counters()
    counters.declare(ANSWERED, "")
    counters.count(ANSWERED, type="t", answer="nack")
    assert f'{ANSWERED}{{answer="nack",type="t"}} 1' in counters.render()


def test_they_are_in_the_chart_when_they_are_asked_for() -> None:
    rendered = [each for each in yaml.safe_load_all((GOLDEN / "everything-set.yaml").read_text()) if each]
    (made,) = (each for each in rendered if each["kind"] == "PrometheusRule")
    assert made["spec"]["groups"][0]["rules"] == RULES
    assert "PrometheusRule" not in (GOLDEN / "default.yaml").read_text()
