"""Names that people meet are explained: checks, messages, metrics, ports, labels, annotations, conditions, paths."""

import ast
import re
from pathlib import Path

import pytest

from ambit.agent import connection_metrics as metrics
from ambit.agent import request_metrics as requests
from ambit.cli.checks import CHECKS
from ambit.cli.preflight import PRE_CHECKS
from ambit.core import names
from tests.docs.messages import messages

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/ambit"
PAGES = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}
OBSERVE = PAGES["observe.md"]
METRIC = re.compile(r"(?:istio|ambit|workload_manager)_[a-z_]+")


def constants(*paths: Path) -> set[str]:
    return {
        node.value
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_check_has_its_heading_and_no_other_has() -> None:
    section = PAGES["troubleshooting.md"].split("\n## Checks\n")[1].split("\n## ")[0]
    assert re.findall(r"^### (.+)$", section, re.MULTILINE) == [check.id for check in CHECKS]


def test_every_check_before_an_installation_has_its_line() -> None:
    section = PAGES["troubleshooting.md"].split("\n## Checks before an installation\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE) == [check.id for check in PRE_CHECKS]


def test_every_message_about_machine_or_processes_is_explained() -> None:
    page = PAGES["troubleshooting.md"]
    assert [(where, text) for where, text in messages() if text not in page] == []


def test_the_metrics_of_the_page_are_those_of_the_code() -> None:
    sources = [
        SOURCE / "node/serve/metrics.py",
        SOURCE / "agent/connection_metrics.py",
        SOURCE / "agent/datagram_metrics.py",
        SOURCE / "agent/request_metrics.py",
        SOURCE / "proxy/process.py",
        *(SOURCE / "control").rglob("*.py"),
    ]
    made = {text.removesuffix("_total") for text in constants(*sources) if METRIC.fullmatch(text)}
    told = re.findall(r"^\| `([a-z_]+)` \|", OBSERVE, re.MULTILINE)
    assert len(told) == len(set(told))
    assert {text.removesuffix("_total") for text in told if METRIC.fullmatch(text)} == made


@pytest.mark.parametrize("label", sorted({*metrics.LABELS, *requests.LABELS}))
def test_every_label_of_the_metrics_is_on_the_page(label: str) -> None:
    assert f"`{label}`" in OBSERVE


def test_every_port_is_on_the_page() -> None:
    ports = {value for name, value in vars(names).items() if name.endswith("_PORT")}
    table = OBSERVE.split("\n### Ports\n")[1].split("\n## ")[0]
    assert {int(port) for port in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == ports


def test_every_label_annotation_and_condition_is_on_a_page() -> None:
    found = {
        text
        for text in constants(*SOURCE.rglob("*.py"))
        if re.fullmatch(r"(?:[a-z]+\.)*(?:istio|ambit)\.io/[A-Za-z-]+", text)
    }
    assert names.DATAPLANE_MODE_LABEL in found
    text = "\n".join(PAGES.values())
    assert {name for name in found if name not in text} == set()


def test_every_debug_path_is_on_the_page() -> None:
    served = {
        text
        for text in constants(SOURCE / "node/serve/endpoints.py", SOURCE / "control/process.py")
        if re.fullmatch(r"(?:/[a-z_]+)+", text)
    }
    assert {"/config_dump", "/debug/syncz"} <= served
    assert {path for path in served if path not in OBSERVE} == set()
