import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.local.pods.environment import (
    MissingReference,
    ServiceLink,
    ServicePort,
    Sources,
    environment_of,
    expand,
    field,
    parse_quantity,
    resource_field,
    service_links,
)

POD = {
    "metadata": {
        "name": "web-0",
        "namespace": "shop",
        "uid": "u",
        "labels": {"app": "web", "b": 'say "hi"'},
        "annotations": {"note": "x"},
    },
    "spec": {"nodeName": "node1"},
    "status": {
        "podIP": "10.244.1.2",
        "podIPs": [{"ip": "10.244.1.2"}, {"ip": "fd00::2"}],
        "hostIP": "172.30.0.11",
    },
}
SOURCES = Sources({"config": {"a": "1"}}, {"secret": {"token": "s"}})


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A", "$A"),
        ("$(A", "$(A"),
        ("cost: 5$", "cost: 5$"),
    ],
)
def test_expand(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expanded


@given(st.text())
def test_expand_leaves_text_without_references(text: str) -> None:
    assert expand(text.replace("$", ""), {"A": "1"}) == text.replace("$", "")


@given(st.text())
def test_doubled_dollars_come_back_single(text: str) -> None:
    assert expand(text.replace("$", "$$"), {"A": "1"}) == text


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web-0"),
        ("metadata.namespace", "shop"),
        ("metadata.labels['app']", "web"),
        ("metadata.annotations['absent']", ""),
        ("metadata.labels", 'app="web"\nb="say \\"hi\\""'),
        ("spec.serviceAccountName", "default"),
        ("status.podIPs", "10.244.1.2,fd00::2"),
        ("status.hostIP", "172.30.0.11"),
    ],
)
def test_field(path: str, value: str) -> None:
    assert field(POD, path) == value


def test_unknown_field_is_refused() -> None:
    with pytest.raises(MissingReference):
        field(POD, "spec.secrets")


def test_later_sources_win() -> None:
    container = {
        "envFrom": [{"configMapRef": {"name": "config"}}, {"prefix": "S_", "secretRef": {"name": "secret"}}],
        "env": [{"name": "a", "value": "own"}, {"name": "b", "value": "$(a)-$(S_token)"}],
    }
    assert environment_of(POD, container, SOURCES, {"PATH": "/bin", "a": "image"}) == {
        "PATH": "/bin",
        "a": "own",
        "S_token": "s",
        "b": "own-s",
    }


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"configMapKeyRef": {"name": "config", "key": "z"}}, 'couldn\'t find key z in configmap "config"'),
        ({"configMapKeyRef": {"name": "none", "key": "z"}}, 'configmap "none" not found'),
        ({"secretKeyRef": {"name": "none", "key": "z"}}, 'secret "none" not found'),
    ],
)
def test_missing_references_name_the_object(entry: dict[str, dict[str, str]], message: str) -> None:
    container = {"env": [{"name": "x", "valueFrom": entry}]}
    with pytest.raises(MissingReference) as caught:
        environment_of(POD, container, SOURCES, {})
    assert caught.value.message == message
    kind = next(iter(entry))
    optional = {"env": [{"name": "x", "valueFrom": {kind: {**entry[kind], "optional": True}}}]}
    assert environment_of(POD, optional, SOURCES, {}) == {}


def test_service_links_of_the_own_namespace_only() -> None:
    ports = (ServicePort(80, "http"), ServicePort(53, "dns-udp", "UDP"))
    services = [
        ServiceLink("shop", "my-db", "10.96.0.7", ports),
        ServiceLink("other", "x", "10.96.0.8", ports),
    ]
    links = service_links(POD, services)
    assert links["MY_DB_SERVICE_HOST"] == "10.96.0.7"
    assert links["MY_DB_SERVICE_PORT_DNS_UDP"] == "53"
    assert links["MY_DB_PORT"] == "tcp://10.96.0.7:80"
    assert links["MY_DB_PORT_53_UDP_PROTO"] == "udp"
    assert not any(name.startswith("X_") for name in links)
    assert service_links({**POD, "spec": {"enableServiceLinks": False}}, services) == {}


@pytest.mark.parametrize(
    ("text", "number"), [("100m", 0.1), ("2", 2), ("1Gi", 2**30), ("1.5k", 1500), ("128Mi", 128 * 2**20)]
)
def test_quantities(text: str, number: float) -> None:
    assert parse_quantity(text) == pytest.approx(number)


def test_resource_field_rounds_up_and_falls_back_to_capacity() -> None:
    container = {"resources": {"requests": {"cpu": "250m"}}}
    assert resource_field(container, {"resource": "requests.cpu"}, {}) == "1"
    assert resource_field(container, {"resource": "requests.cpu", "divisor": "1m"}, {}) == "250"
    assert resource_field(container, {"resource": "limits.cpu"}, {"cpu": "8"}) == "8"
