"""What labels and annotations of pods mean, and how a sandbox is found."""

import ipaddress
import json
from pathlib import Path

import pytest

from ambit.core.identity import Identity
from ambit.node.enrol.pods import namespace_decoder, pod_decoder, refusal, wanted
from ambit.node.enrol.sandbox import Sandbox, find


def pod(labels: dict[str, str], annotations: dict[str, str] | None = None, **spec: object) -> bytes:
    return json.dumps(
        {
            "metadata": {
                "name": "web",
                "namespace": "default",
                "uid": "u",
                "labels": labels,
                "annotations": annotations or {},
                "ownerReferences": [{"kind": "ReplicaSet"}],
            },
            "spec": {"containers": [{}], **spec},
            "status": {
                "phase": "Running",
                "podIP": "10.0.0.1",
                "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            },
        }
    ).encode()


AMBIENT = {"istio.io/dataplane-mode": "ambient"}
NONE = {"istio.io/dataplane-mode": "none"}


@pytest.mark.parametrize(
    ("namespace", "labels", "spec", "expected"),
    [
        (AMBIENT, {}, {}, True),
        ({}, AMBIENT, {}, True),
        (AMBIENT, NONE, {}, False),
        (NONE, AMBIENT, {}, True),
        ({}, {}, {}, False),
        (AMBIENT, AMBIENT, {"hostNetwork": True}, False),
    ],
)
def test_which_pods_are_wanted(
    namespace: dict[str, str], labels: dict[str, str], spec: dict[str, object], expected: bool
) -> None:
    found = namespace_decoder.decode(json.dumps({"metadata": {"name": "default", "labels": namespace}}))
    assert wanted(pod_decoder.decode(pod(labels, None, **spec)), found) is expected


@pytest.mark.parametrize(
    ("namespace", "labels", "spec", "excluded", "expected"),
    [
        (AMBIENT, {}, {}, (), ""),
        (AMBIENT, {}, {}, ("default",), "namespace default is excluded from the mesh"),
        ({}, AMBIENT, {}, ("default",), "namespace default is excluded from the mesh"),
        ({}, {}, {}, ("default",), ""),
        (AMBIENT, NONE, {}, ("default",), ""),
        (AMBIENT, {}, {"hostNetwork": True}, (), "the pod is in the host's network"),
    ],
)
def test_who_asks_and_is_not_wanted_hears_why(
    namespace: dict[str, str],
    labels: dict[str, str],
    spec: dict[str, object],
    excluded: tuple[str, ...],
    expected: str,
) -> None:
    found = namespace_decoder.decode(json.dumps({"metadata": {"name": "default", "labels": namespace}}))
    asking = pod_decoder.decode(pod(labels, None, **spec))
    assert refusal(asking, found, excluded) == expected
    assert not (expected and wanted(asking, found, excluded))


def test_what_the_agent_reads_of_a_pod() -> None:
    found = pod_decoder.decode(
        pod(
            {},
            {"ambient.istio.io/dns-capture": "false", "ambient.istio.io/redirection": "enabled"},
            serviceAccountName="runner",
            dnsConfig={"nameservers": ["10.0.0.53"]},
        )
    )
    assert found.identity("td") == Identity("td", "default", "runner")
    assert found.addresses == (ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("fd00::1"))
    assert found.dns_wish == "false"
    assert found.captures_inbound
    assert found.annotated
    assert found.running
    assert not found.terminating
    assert found.spec.dns_config.nameservers == ("10.0.0.53",)


def test_a_static_pod_is_known_by_its_mirror() -> None:
    assert pod_decoder.decode(pod({}, {"kubernetes.io/config.mirror": "0123"})).static
    assert not pod_decoder.decode(pod({})).static


def test_a_sandbox_is_found_by_the_pod_runners_record(tmp_path: Path) -> None:
    sandboxes, namespaces = tmp_path / "sandboxes", tmp_path / "netns"
    for name, uid in (("s1", "u1"), ("s2", "u2"), ("gone", "u3")):
        (sandboxes / name).mkdir(parents=True)
        (sandboxes / name / "pod.json").write_text(json.dumps({"uid": uid}))
    (sandboxes / "s2" / "pod.json").write_text("nonsense")
    namespaces.mkdir()
    (namespaces / "s1").touch()
    assert find(sandboxes, namespaces, "u1", ()) == ("s1", str(namespaces / "s1"))
    assert find(sandboxes, namespaces, "u2", ()) is None
    assert find(sandboxes, namespaces, "u3", ()) is None


@pytest.mark.parametrize(
    ("wish", "by_default", "otherwise"),
    [("", True, False), ("true", True, True), ("false", False, False), ("maybe", True, False)],
)
def test_an_annotation_goes_before_what_the_node_does(wish: str, by_default: bool, otherwise: bool) -> None:
    sandbox = Sandbox("default", "web", "u", "s", "/n", (), dns_wish=wish)
    assert sandbox.captures_dns(True) is by_default
    assert sandbox.captures_dns(False) is otherwise


def test_a_record_that_knows_no_annotation_keeps_what_is() -> None:
    sandbox = Sandbox("default", "web", "u", "s", "/n", (), dns=False)
    assert not sandbox.captures_dns(True)


def test_which_ports_a_kubelet_opens() -> None:
    http = {"httpGet": {"path": "/", "port": "web"}}
    containers = [
        {
            "ports": [{"name": "web", "containerPort": 8080}, {"containerPort": 9090}],
            "livenessProbe": http,
            "readinessProbe": {"tcpSocket": {"port": 9000}, "periodSeconds": 1},
            "startupProbe": {"exec": {"command": ["true"]}},
            "lifecycle": {"preStop": {"httpGet": {"port": "7000"}}, "postStart": {"sleep": {"seconds": 1}}},
        },
        {"livenessProbe": {"grpc": {"port": 5000, "service": "x"}}},
        {"livenessProbe": {"httpGet": {"port": 1, "host": "192.0.2.1"}}, "readinessProbe": http},
    ]
    sidecar = {"startupProbe": {"tcpSocket": {"port": 15}}, "restartPolicy": "Always"}
    found = pod_decoder.decode(pod({}, containers=containers, initContainers=[sidecar]))
    assert found.probe_ports == (15, 5000, 7000, 8080, 9000)
    assert pod_decoder.decode(pod({})).probe_ports == ()
