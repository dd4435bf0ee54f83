"""Requests that somebody in the mesh is asked about, who takes calls of those only who read requests: a waypoint in a
pod, or the pods that serve, without a proxy between."""

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
IN_A_POD, INLINE = "ambit-waypoint", "ambit-inline"


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
    """`web` behind a waypoint of this class, `authz` who is asked, and `client`."""

    def __init__(self, mesh: Mesh, namespace: str, of_class: str) -> None:
        self.mesh = mesh
        self.namespace = namespace
        self.of_class = of_class
        self.authorizer = _served("authz", PROGRAM, mesh.nodes[1], ("http", 8000, 8000), ("grpc", 9000, 9000))

    def ask(self, url: str) -> str:
        """The status, why the proxy itself answered, and what was said; `refused` when nobody answered."""
        words = ("curl", "-sS", "-m", "30", "-w", "\n%{http_code} %header{x-ambit-reason}", f"http://{url}")
        done = self.mesh.exec(self.namespace, "client", *words, check=False)
        said, _, status = done.stdout.rpartition("\n")
        return f"{status.strip()} {said}".strip() if done.returncode == 0 else "refused"

    def answers(self, url: str, wanted: str) -> None:
        self.mesh.wait(f"{wanted} for {url}", lambda: self.ask(url) == wanted)

    def denied_by(self, path: str) -> list[str]:
        """The policies that records of denied requests for this path name."""
        words = ("flows", "--requests", "--denied", "-n", self.namespace, "--path", path, "-o", "json")
        return [json.loads(each)["policy"] for each in self.mesh.ambit(*words).stdout.splitlines()]

    def wait_for(self, policy: str) -> None:
        """It is enforced."""
        said = ("wait", "-n", self.namespace, f"authorizationpolicy/{policy}")
        self.mesh.kubectl(*said, "--for=condition=WaypointAccepted", "--timeout=110s")


@pytest.fixture(scope="module", params=[IN_A_POD, INLINE])
def shop(mesh: Mesh, request: pytest.FixtureRequest) -> Iterator[Shop]:
    with make_namespace(mesh) as namespace, with_mesh_config(mesh, _providers(namespace)):
        shop = Shop(mesh, namespace, request.param)
        web = _served("web", _SERVER, mesh.nodes[0], ("http", 80, 8080))
        web[0]["metadata"]["labels"] = {"istio.io/use-waypoint": "way"}
        web[1]["spec"]["serviceAccountName"] = "web"
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web"}}
        reader = "way" if request.param == IN_A_POD else "web"
        only = {"from": [{"source": {"principals": [f"cluster.local/ns/{namespace}/sa/{reader}"]}}]}
        guard = _policy("only-reader", selector={"matchLabels": {"app": "authz"}}, rules=[only])
        client = pod("client", mesh.nodes[0], ["sleep", "3600"])
        way = waypoint(request.param, "service")
        customs = [_custom(each) for each in (BY_HTTP, BY_GRPC)]
        apply_in(mesh, namespace, [account, way, guard, *customs, *web, *shop.authorizer, client])
        mesh.kubectl("wait", "-n", namespace, "--for=condition=Programmed", "gateway/way", "--timeout=110s")
        for name in (BY_HTTP, BY_GRPC):
            shop.wait_for(name)
        shop.answers("web/open", "200 None")
        yield shop


@pytest.mark.parametrize(("provider", "user"), [(BY_HTTP, "ann"), (BY_GRPC, "None")])
def test_his_no_is_the_answer_and_his_yes_lets_pass(shop: Shop, provider: str, user: str) -> None:
    shop.answers(f"web/{provider}/yes", f"200 {user}")
    assert shop.ask(f"web/{provider}/no") == "401 denied"
    rule = f"{shop.namespace}/{provider}[0]"
    shop.mesh.wait("the record", lambda: set(shop.denied_by(f"/{provider}/no")) == {rule})


def test_nobody_but_who_reads_asks_him(shop: Shop) -> None:
    shop.mesh.wait("the refusal", lambda: shop.ask("authz:8000/") == "refused")


def test_whoever_comes_past_the_service_meets_the_same_where_nothing_is_between(shop: Shop) -> None:
    """By the pod's own address, also from outside of the mesh in plain text."""
    if shop.of_class != INLINE:
        return
    pod = shop.mesh.kubectl(
        "get", "pod", "web", "-n", shop.namespace, "-o", "jsonpath={.status.podIP}"
    ).stdout
    for provider, user in ((BY_HTTP, "ann"), (BY_GRPC, "None")):
        shop.answers(f"{pod}:8080/{provider}/yes", f"200 {user}")
        assert shop.ask(f"{pod}:8080/{provider}/no") == "401 denied"
    assert shop.ask(f"{pod}:8080/open") == "200 None"
    words = ("why", f"{shop.namespace}/client", "GET", f"http://web.{shop.namespace}/{BY_HTTP}/yes")
    said = shop.mesh.ambit(*words, check=False).stdout
    assert f"asks provider {BY_HTTP} by {shop.namespace}/{BY_HTTP}[0]" in said


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
    words = ("logs", "-n", shop.namespace, "deploy/ext-authz")
    asked = ("gRPC denied", "gRPC allowed", "GET /headers 403", "GET /headers 200")

    def written() -> str:
        log = shop.mesh.kubectl(*words).stdout
        return log if all(each in log for each in asked) else ""

    assert "/ip" not in shop.mesh.wait("he says what he was asked", written)
