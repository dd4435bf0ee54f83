"""Requests that somebody in the mesh is asked about, who takes calls of the waypoint only."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ambit.testing.mesh import Mesh
from tests.mesh.authorizer import PROGRAM
from tests.mesh.echo import telling
from tests.mesh.guide import SAMPLES, Guide
from tests.mesh.pods import apply_in, make_namespace, pod
from tests.mesh.settings import with_mesh_config
from tests.mesh.shop import waypoint

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl, pytest.mark.feature("N29")]

_SERVER = telling("x-user")
BY_HTTP, BY_GRPC = "by-http", "by-grpc"


def _providers(namespace: str) -> str:
    place = {"service": f"authz.{namespace}.svc.cluster.local", "timeout": "5s"}
    over_http = {**place, "port": 8000, "headersToUpstreamOnAllow": ["x-user"]}
    over_grpc = {**place, "port": 9000}
    sample = {"service": f"ext-authz.{namespace}.svc.cluster.local"}
    seen = {"includeRequestHeadersInCheck": ["x-ext-authz"], "headersToUpstreamOnAllow": ["x-ext-authz-*"]}
    return yaml.safe_dump(
        {
            "extensionProviders": [
                {"name": BY_HTTP, "envoyExtAuthzHttp": over_http},
                {"name": BY_GRPC, "envoyExtAuthzGrpc": over_grpc},
                {"name": "sample-ext-authz-grpc", "envoyExtAuthzGrpc": {**sample, "port": 9000}},
                {"name": "sample-ext-authz-http", "envoyExtAuthzHttp": {**sample, **seen, "port": 8000}},
            ]
        }
    )


def _policy(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


def _custom(provider: str) -> dict[str, Any]:
    rule = {"to": [{"operation": {"paths": [f"/{provider}/*"]}}]}
    target = {"group": "", "kind": "Service", "name": "web"}
    return _policy(provider, action="CUSTOM", provider={"name": provider}, targetRefs=[target], rules=[rule])


def _served(name: str, script: str, node: str, *ports: tuple[str, int, int]) -> list[dict[str, Any]]:
    """A service of this name and its pod; ports have a name, their number and the pod's."""
    ready = {"readinessProbe": {"tcpSocket": {"port": ports[0][2]}, "periodSeconds": 1}}
    listed = [{"name": name, "port": port, "targetPort": target} for name, port, target in ports]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": {"app": name}, "ports": listed},
        },
        pod(name, node, ["python3", "-uc", script], labels={"app": name}, **ready),
    ]


class Shop:
    """`web` behind a waypoint, `authz` whom it asks, and `client`."""

    def __init__(self, mesh: Mesh, namespace: str) -> None:
        self.mesh = mesh
        self.namespace = namespace
        self.authorizer = _served("authz", PROGRAM, mesh.nodes[1], ("http", 8000, 8000), ("grpc", 9000, 9000))

    def ask(self, url: str) -> str:
        """The status, why the proxy itself answered, and what was said; `refused` when nobody answered."""
        words = ("curl", "-sS", "-m", "10", "-w", "\n%{http_code} %header{x-ambit-reason}", f"http://{url}")
        done = self.mesh.exec(self.namespace, "client", *words, check=False)
        said, _, status = done.stdout.rpartition("\n")
        return f"{status.strip()} {said}".strip() if done.returncode == 0 else "refused"

    def answers(self, url: str, wanted: str) -> None:
        self.mesh.wait(f"{wanted} for {url}", lambda: self.ask(url) == wanted)

    def denied_by(self, path: str) -> list[str]:
        """The policies that records of denied requests for this path name."""
        words = ("flows", "--requests", "--denied", "-n", self.namespace, "--path", path, "-o", "json")
        return [json.loads(each)["policy"] for each in self.mesh.ambit(*words).stdout.splitlines()]


@pytest.fixture(scope="module")
def shop(mesh: Mesh) -> Iterator[Shop]:
    with make_namespace(mesh) as namespace, with_mesh_config(mesh, _providers(namespace)):
        shop = Shop(mesh, namespace)
        web = _served("web", _SERVER, mesh.nodes[0], ("http", 80, 8080))
        web[0]["metadata"]["labels"] = {"istio.io/use-waypoint": "way"}
        only_waypoint = {"from": [{"source": {"principals": [f"cluster.local/ns/{namespace}/sa/way"]}}]}
        guard = _policy("only-waypoint", selector={"matchLabels": {"app": "authz"}}, rules=[only_waypoint])
        client = pod("client", mesh.nodes[0], ["sleep", "3600"])
        way = waypoint("ambit-waypoint", "service")
        customs = [_custom(each) for each in (BY_HTTP, BY_GRPC)]
        apply_in(mesh, namespace, [way, guard, *customs, *web, *shop.authorizer, client])
        mesh.kubectl("wait", "-n", namespace, "--for=condition=Programmed", "gateway/way", "--timeout=60s")
        for name in (BY_HTTP, BY_GRPC):
            said = ("wait", "-n", namespace, f"authorizationpolicy/{name}")
            mesh.kubectl(*said, "--for=condition=WaypointAccepted", "--timeout=60s")
        shop.answers("web/open", "200 None")
        yield shop


@pytest.mark.parametrize(("provider", "user"), [(BY_HTTP, "ann"), (BY_GRPC, "None")])
def test_his_no_is_the_answer_and_his_yes_lets_pass(shop: Shop, provider: str, user: str) -> None:
    shop.answers(f"web/{provider}/yes", f"200 {user}")
    assert shop.ask(f"web/{provider}/no") == "401 denied"
    rule = f"{shop.namespace}/{provider}[0]"
    shop.mesh.wait("the record", lambda: set(shop.denied_by(f"/{provider}/no")) == {rule})


def test_nobody_but_the_waypoint_asks_him(shop: Shop) -> None:
    shop.mesh.wait("the refusal", lambda: shop.ask("authz:8000/") == "refused")


def test_while_he_is_away_nothing_passes_that_he_is_asked_about(shop: Shop) -> None:
    shop.mesh.kubectl("delete", "pod", "-n", shop.namespace, "authz")
    for provider in (BY_HTTP, BY_GRPC):
        shop.answers(f"web/{provider}/yes", "403 denied")
        rule = f"{shop.namespace}/{provider}[0]"
        shop.mesh.wait("the record", lambda each=provider, rule=rule: rule in shop.denied_by(f"/{each}/yes"))
    assert shop.ask("web/open") == "200 None"
    apply_in(shop.mesh, shop.namespace, shop.authorizer)
    shop.answers(f"web/{BY_HTTP}/yes", "200 ann")
    shop.answers(f"web/{BY_GRPC}/yes", "200 None")


def test_istios_page_of_external_authorization_has_its_sample_say_no_and_yes(shop: Shop) -> None:
    page = Guide(shop.mesh, shop.namespace, shop.namespace)
    page.samples("httpbin", "curl")
    sample = (SAMPLES / "extauthz/ext-authz.yaml").read_text()
    page.apply(
        sample.replace("imagePullPolicy: Always", "imagePullPolicy: IfNotPresent")
    )  # there is no registry
    shop.mesh.kubectl("label", "-n", shop.namespace, "service/httpbin", "istio.io/use-waypoint=way")
    page.available()
    url = f"http://httpbin.{shop.namespace}:8000"
    page.until("200", f"{url}/ip")
    for provider in ("sample-ext-authz-grpc", "sample-ext-authz-http"):
        page.apply(f"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: ext-authz}}
spec:
  targetRefs: [{{kind: Service, group: "", name: httpbin}}]
  action: CUSTOM
  provider: {{name: {provider}}}
  rules: [{{to: [{{operation: {{paths: [/headers]}}}}]}}]
""")
        page.until("403", f"{url}/headers", "-H", "x-ext-authz: deny")
        said = page.curl(f"{url}/headers", "-H", "x-ext-authz: deny")
        assert said == "denied by ext_authz for not found header `x-ext-authz: allow` in the request"
        told = json.loads(page.curl(f"{url}/headers", "-H", "x-ext-authz: allow"))["headers"]
        assert told["X-Ext-Authz-Check-Result"] == ["allowed"]
        assert page.code(f"{url}/ip") == "200"
        page.delete("authorizationpolicy/ext-authz")
        page.until("200", f"{url}/headers")
    log = shop.mesh.kubectl("logs", "-n", shop.namespace, "deploy/ext-authz").stdout
    assert {"gRPC denied", "gRPC allowed"} <= set(log.splitlines())
    assert "GET /headers 403" in log and "GET /headers 200" in log and "/ip" not in log
