"""What the charts render to; Helm itself is needed only to change it."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from ambit import __version__
from ambit.cli.helm import umbrella_chart
from ambit.core.names import MESH_CONFIG_KEY
from ambit.core.selector import Selector
from ambit.ingest.mesh_settings.mesh_config import mesh_config
from ambit.ingest.visibility import EntryVisibility, VisibilityPolicy
from ambit.model.service import Visibility
from ambit.objects.crds import read_bundle
from tests.charts.helm_program import find_helm, needed_helm
from tests.charts.rendered import CASES, CHARTS, GOLDEN, all_charts, render, source_digest

DEFINITIONS = CHARTS / "base/files/crds"


@pytest.fixture(scope="module")
def helm() -> str:
    return needed_helm()


def definitions() -> dict[str, str]:
    files = {}
    for bundle in ("gateway-standard", "istio"):
        for value in read_bundle(bundle):
            if value["kind"] == "CustomResourceDefinition":
                annotations = value["metadata"].setdefault("annotations", {})
                annotations["helm.sh/resource-policy"] = "keep"
                value.pop("status", None)
                name = value["metadata"]["name"]
                files[f"{name}.json"] = json.dumps(value, separators=(",", ":"), ensure_ascii=False) + "\n"
    return files


def test_the_kinds_are_those_that_we_validate(pytestconfig: pytest.Config) -> None:
    if pytestconfig.option.update_golden:
        for path in DEFINITIONS.glob("*"):
            path.unlink()
        for name, text in definitions().items():
            (DEFINITIONS / name).write_text(text)
    assert {path.name: path.read_text() for path in DEFINITIONS.iterdir()} == definitions()


def test_the_goldens_are_of_these_charts(helm_if_updating: str | None) -> None:
    if helm_if_updating is not None:
        GOLDEN.mkdir(exist_ok=True)
        for name, values in CASES.items():
            text = render(helm_if_updating, values)
            (GOLDEN / f"{name}.yaml").write_text(f"# charts: {source_digest()}\n{text}")
    for name in CASES:
        first = (GOLDEN / f"{name}.yaml").read_text().splitlines()[0]
        assert first == f"# charts: {source_digest()}", (
            "type `./dev test tests/charts --update-golden` (needs Helm)"
        )


@pytest.fixture
def helm_if_updating(pytestconfig: pytest.Config) -> str | None:
    return find_helm() if pytestconfig.option.update_golden else None


@pytest.mark.parametrize("name", list(CASES))
def test_helm_renders_the_golden(helm: str, name: str) -> None:
    assert (GOLDEN / f"{name}.yaml").read_text().split("\n", 1)[1] == render(helm, CASES[name])


@pytest.mark.parametrize("chart", all_charts(), ids=lambda path: path.name)
def test_helm_lint_finds_nothing(helm: str, chart: Path) -> None:
    with umbrella_chart() as umbrella:
        directory = umbrella if chart.name == "ambit" else chart
        done = subprocess.run(
            [helm, "lint", "--strict", os.fspath(directory)],
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("meshConfig.trustDomain=x", "meshConfig"),
        ("node.concurency=2", "concurency"),
        ("global.logging.level=loud", "level"),
        ("control.trustedNodeAccounts={ztunnel}", "trustedNodeAccounts"),
        ("control.jwksNetworks={everything}", "jwksNetworks"),
        ("global.meshConfig.rootNamespace=a/b", "rootNamespace"),
        ("global.meshConfig.serviceEntryVisibility.defaultVisibility=HIDDEN", "defaultVisibility"),
        ("global.meshConfig.serviceEntryVisibility.default=NONE", "serviceEntryVisibility"),
        ("global.meshConfig.accessLogFile=/var/log/requests", "accessLogFile"),
        ("global.meshConfig.defaultConfig.gatewayTopology.numTrustedProxies=-1", "numTrustedProxies"),
        ("global.meshConfig.extensionProviders[0].names=x", "extensionProviders"),
        ("control.podLabels.app=mine", "podLabels"),
        (r"node.podLabels.istio\.io/dataplane-mode=ambient", "podLabels"),
        ("node.nodeSelector.mesh=true", "nodeSelector/mesh"),
        ("node.caAddress=istiod", "caAddress"),
        ("node.concurrency=many", "concurrency"),
        ("node.concurrency=0", "concurrency"),
        ("node.cni.cniBinDir=/", "cniBinDir"),
        ("node.updateStrategy.type=Recreate", "updateStrategy"),
        ("node.updateStrategy.rollingUpdate.maxSurge=some", "maxSurge"),
        ("node.seccompProfile.type=None", "seccompProfile"),
        ("global.networkPolicy.enable=true", "networkPolicy"),
    ],
)
def test_a_value_that_would_do_nothing_or_harm_is_refused(helm: str, value: str, named: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        render(helm, (value,))
    assert named in raised.value.stderr


def test_other_settings_of_the_mesh_roll_the_control_plane() -> None:
    told = {}
    for name in ("default", "everything-set"):
        objects = list(yaml.safe_load_all((GOLDEN / f"{name}.yaml").read_text()))
        data = next(each["data"] for each in objects if each["metadata"]["name"] == "ambit-mesh-config")
        pod = next(each["spec"]["template"] for each in objects if each["kind"] == "Deployment")
        told[pod["metadata"]["annotations"]["checksum/mesh-config"]] = mesh_config(
            data[MESH_CONFIG_KEY], name
        )
    assert [each.entry_visibility for each in told.values()] == [
        None,
        EntryVisibility(
            Visibility.NAMESPACE, (VisibilityPolicy(Visibility.PUBLIC, (Selector({"team": "mesh"}),)),)
        ),
    ]


def test_numbers_in_files_of_values_stay_as_they_are(helm: str, tmp_path: Path) -> None:
    """YAML's numbers reach Helm's templates as floats."""
    file = tmp_path / "values.yaml"

    def node() -> subprocess.CompletedProcess[str]:
        command = [helm, "template", "x", os.fspath(CHARTS / "node"), "--values", os.fspath(file)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)

    file.write_text("global: {tag: 20261120}\nmaxDrain: 2000000\n")
    rendered = node().stdout
    assert 'image: "localhost/ambit:20261120"' in rendered and '- "2000000"' in rendered
    file.write_text("global: {tag: 1.10}\n")  # would be 1.1
    assert "/global/tag" in node().stderr


def test_each_part_is_a_chart_of_its_own(helm: str) -> None:
    for chart in all_charts()[:-1]:
        command = [helm, "template", "x", os.fspath(chart), "-n", "ambit-system"]
        subprocess.run(command, check=True, capture_output=True, timeout=240)


def test_versions_are_the_programs() -> None:
    for chart in all_charts():
        text = (chart / "Chart.yaml").read_text()
        assert f"\nversion: {__version__}\n" in text and f"\nappVersion: {__version__}\n" in text


def test_values_of_all_charts_agree() -> None:
    """`global` means the same in each chart, and the umbrella knows every value of its parts."""
    schemas = {chart.name: json.loads((chart / "values.schema.json").read_text()) for chart in all_charts()}
    parts = {name: schema for name, schema in schemas.items() if name != "ambit"}
    umbrella = schemas["ambit"]["properties"]
    for name, schema in parts.items():
        assert schema["properties"]["global"] == umbrella["global"]
        mine, there = ({**each["properties"], "global": None} for each in (schema, umbrella[name]))
        assert mine == there


@pytest.mark.feature("F72")
@pytest.mark.parametrize("name", list(CASES))
def test_no_pod_of_the_mesh_shares_the_hosts_network(name: str) -> None:
    objects = list(yaml.safe_load_all((GOLDEN / f"{name}.yaml").read_text()))
    templates = [
        each["spec"]["template"]["spec"] for each in objects if each["kind"] in ("DaemonSet", "Deployment")
    ]
    assert templates
    assert [each for each in templates if each.get("hostNetwork") or each.get("hostPID")] == []
