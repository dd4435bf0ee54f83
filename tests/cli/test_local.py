"""`ambit local …` and `ambit flows` where there is nothing to show, or too much."""

import asyncio
from typing import Any, Self

import pytest
from click.testing import CliRunner

from ambit.cli.commands import flows, local_forward
from ambit.cli.commands.local_forward import add_forward, chosen_port, forward, named_service
from ambit.cli.commands.local_image import words
from ambit.core.errors import BadInput
from ambit.kube.errors import NotFound
from ambit.local.pods.images import BUILT_IN


class Services:
    """Stands for the client of a cluster with these services."""

    def __init__(self, **ports: list[int]) -> None:
        self.ports = ports

    async def get(self, resource: object, name: str, namespace: str) -> dict[str, Any]:
        if name not in self.ports:
            raise NotFound(404, "NotFound", f'services "{name}" not found')
        return {"spec": {"ports": [{"port": port} for port in self.ports[name]]}}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("web", ("web", "shop")),
        ("svc/web", ("web", "shop")),
        ("service/web.bank", ("web", "bank")),
        ("web.bank.svc.cluster.local", ("web", "bank")),
    ],
)
def test_a_service_by_the_names_that_kubectl_and_dns_have(typed: str, meant: tuple[str, str]) -> None:
    assert named_service(typed, "shop") == meant
    with pytest.raises(BadInput, match="is no service"):
        named_service("deploy/web", "shop")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("80", (80, "TCP")),
        ("http", (80, "TCP")),
        ("81", (81, "TCP")),
        ("https", None),
        ("", None),
        ("53", (53, "TCP")),
        ("53/udp", (53, "UDP")),
        ("53/tcp", (53, "TCP")),
        ("dns", (53, "UDP")),
        ("54", (54, "UDP")),
        ("80/udp", None),
        ("99", None),
    ],
)
def test_a_port_by_number_or_name(wanted: str, found: tuple[int, str] | None) -> None:
    ports = [
        {"port": 80, "name": "http"},
        {"port": 81},
        {"port": 53, "protocol": "UDP", "name": "dns"},
        {"port": 53, "protocol": "TCP", "name": "dns-tcp"},
        {"port": 54, "protocol": "UDP"},
        {"port": 99, "protocol": "SCTP"},
    ]
    assert chosen_port(ports, wanted) == found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("add", "web", "x:80"), "'x' is no port of this machine"),
        (("add", "web", "0:80"), "'0' is no port of this machine"),
        (("add", "web", "8080:80", "--host-port", "9090"), "two ports of this machine are given"),
        (("remove", "10.0.0.1:80"), "is no port of this machine"),
    ],
)
def test_ports_of_this_machine_are_checked(words: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(forward, words)
    assert isinstance(result.exception, BadInput)
    assert message in result.exception.message


def test_a_forward_to_nothing_says_what_there_is() -> None:
    client: Any = Services(web=[80, 443])
    with pytest.raises(BadInput, match="no service shop/wbe") as problem:
        asyncio.run(add_forward(client, "shop", "wbe", 80, 1))
    assert "kubectl get services" in problem.value.hint
    with pytest.raises(BadInput, match="has no port 81") as problem:
        asyncio.run(add_forward(client, "shop", "web", 81, 1))
    assert problem.value.hint == "it has: 80, 443"


@pytest.mark.parametrize(("words", "meant"), [((), "shop"), (("-n", "bank"), "bank")])
def test_a_service_without_a_namespace_is_of_the_contexts(
    words: tuple[str, ...], meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Opened(Services):
        namespace = "shop"

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(local_forward, "laptop_client", lambda _: Opened())
    result = CliRunner().invoke(forward, ["add", "web", "80", *words])
    assert isinstance(result.exception, BadInput)
    assert result.exception.message == f"no service {meant}/web"


def test_samples_are_listed_by_name_and_other_commands_as_they_are() -> None:
    listed = {entry.pattern: words([*entry.command, *entry.args]) for entry in BUILT_IN}
    assert listed["*examples-bookinfo-details-v*"] == "(ambit's sample bookinfo details 9080)"
    assert listed["bash"] == "bash"
    assert max(map(len, listed.values())) < 80
    assert words(["sh", "-c", "a b"]) == "sh -c 'a b'"


@pytest.mark.parametrize(
    ("typed", "said"), [(["--denied"], "no connection like that"), ([], "no connection has")]
)
def test_no_flow_is_said(typed: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: object) -> list[object]:
        return []

    async def call(client: object, work: Any) -> Any:
        return await work(client)

    monkeypatch.setattr(flows, "open_client", lambda *_: None)
    monkeypatch.setattr(flows, "with_client", call)
    monkeypatch.setattr(flows, "node_pods", nothing)
    for name in ("flows_of", "proxy_pods", "proxy_flows"):
        monkeypatch.setattr(flows, name, nothing)
    result = CliRunner().invoke(flows.command, typed, catch_exceptions=False)
    assert result.stdout == "" and said in result.stderr
