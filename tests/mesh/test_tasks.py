"""Istio's guide to ambient and its task pages about requests inside the mesh, each as one test: sample files
unchanged, in the order of the page, and what the page says one sees, at both placements. What differs is in
docs/samples.md."""

import json
import uuid
from collections.abc import Iterator

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.guide import SAMPLES, Guide, make_guide
from tests.mesh.placements import INLINE, PLACEMENTS
from tests.mesh.pods import make_namespace
from tests.tokens import Issuer

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

VERSIONS = "bookinfo/platform/kube/bookinfo-versions"
ROUTES = "bookinfo/gateway-api/"
PAGE = "http://productpage:9080/productpage"
BLACK, RED = "black stars", "red stars"


@pytest.fixture(scope="module")
def shop(mesh: Mesh) -> Iterator[Guide]:
    """Bookinfo with its gateway and httpbin. The waypoint is there, and nobody is bound to it."""
    samples = ("bookinfo", VERSIONS, "bookinfo/gateway-api/bookinfo-gateway", "httpbin")
    with make_guide(mesh, samples) as guide:
        mesh.ambit("waypoint", "apply", "-n", guide.namespace)
        guide.available()
        guide.available(guide.outside)
        yield guide


@pytest.fixture(scope="module", params=PLACEMENTS)
def bound(shop: Guide, request: pytest.FixtureRequest) -> Guide:
    """With all services of the namespace behind the waypoint, of this class."""
    bind(shop, request.param)
    return shop


def bind(shop: Guide, of_class: str) -> None:
    """All services of the namespace, to its waypoint, which is of this class from then on."""
    path = "jsonpath={.items[?(@.metadata.name=='waypoint')].spec.gatewayClassName}"
    former = shop.mesh.kubectl("get", "gateways", "-n", shop.namespace, "-o", path).stdout
    if (former == INLINE) is not (of_class == INLINE):
        shop.delete("gateway/waypoint")
    if of_class == INLINE:
        shop.apply(_INLINE)
        bound = ("label", "namespace", shop.namespace, "--overwrite", "istio.io/use-waypoint=waypoint")
        shop.mesh.kubectl(*bound)
    else:
        shop.mesh.ambit("waypoint", "apply", "-n", shop.namespace, "--enroll-namespace", "--wait")


_INLINE = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint}
spec:
  gatewayClassName: ambit-inline
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
"""


def pages(shop: Guide, count: int) -> list[str]:
    """So many product pages."""
    return shop.curl(f"{PAGE}?[1-{count}]").split("<!DOCTYPE html>")[1:]


def who(page: str) -> str:
    """Which version of the reviews is on the page; empty when there are none."""
    return page.partition("Reviews served by: <b>")[2].partition("-v")[2][:1]


def versions(shop: Guide, count: int) -> list[str]:
    return [who(page) for page in pages(shop, count)]


@pytest.mark.parametrize("of_class", PLACEMENTS)
@pytest.mark.feature("F162")
def test_the_guide_to_ambient_admits_the_gateway_then_get_of_curl_and_sends_a_tenth_to_v2(
    shop: Guide, of_class: str
) -> None:
    shop.mesh.kubectl("label", "namespace", shop.namespace, "istio.io/use-waypoint-")
    address = shop.address("bookinfo-gateway")
    front = f"http://{address}/productpage"
    shop.until("200", front, outside=True)
    assert shop.code(f"http://{address}/other", outside=True) == "404"
    shop.apply("""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: productpage-viewer}
spec:
  selector: {matchLabels: {app: productpage}}
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/INSIDE/sa/bookinfo-gateway-istio]}}]
""")
    # The page says 56; whether curl sees the reset or the end before it is a matter of time.
    shop.mesh.wait("curl is refused", lambda: shop.code(PAGE) in {"exit 52", "exit 56"})
    assert "<title>Simple Bookstore App</title>" in shop.curl(front, outside=True)

    bind(shop, of_class)
    shop.apply("""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: productpage-viewer}
spec:
  targetRefs: [{kind: Service, group: "", name: productpage}]
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/INSIDE/sa/curl]}}]
    to: [{operation: {methods: [GET]}}]
""")
    shop.until("403", PAGE, "-X", "DELETE")
    assert shop.curl(PAGE, "-X", "DELETE") == "RBAC: access denied"
    # Whose node may hear of the waypoint later than that of curl.
    denied = "RBAC: access denied"
    shop.mesh.wait("others are denied", lambda: shop.curl(PAGE, client="deploy/reviews-v1") == denied)
    assert "<title>Simple Bookstore App</title>" in shop.curl(PAGE)

    with shop.routes(f"{ROUTES}route-reviews-90-10"):
        shop.mesh.wait("reviews of v1 and v2 only", lambda: set(versions(shop, 40)) <= {"1", "2"})
        found = versions(shop, 100)
        # None at all once in 40,000 times, more than that once in a hundred million times.
        assert set(found) <= {"1", "2"} and found.count("2") <= 30
        shop.mesh.wait("reviews of v2, too", lambda: "2" in versions(shop, 40))
    shop.delete("authorizationpolicy/productpage-viewer")
    shop.until("200", front, outside=True)


@pytest.mark.feature("F32")
def test_requests_of_jason_are_routed_to_v2_and_those_of_others_to_v1(bound: Guide) -> None:
    front = f"http://{bound.address('bookinfo-gateway')}"

    def as_user(name: str) -> str:
        """The product page after a login by the gateway."""
        return bound.curl("-L", "-b", "", "-d", f"username={name}&passwd=", f"{front}/login", outside=True)

    with bound.routes(f"{ROUTES}route-all-v1"):
        bound.mesh.wait("reviews of v1 only", lambda: set(versions(bound, 20)) == {"1"})
        seen = pages(bound, 20)
        assert {who(page) for page in seen} == {"1"} and not any("stars" in page for page in seen)
        bound.apply("""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews, port: 9080}]
  rules:
  - matches: [{headers: [{name: end-user, value: jason}]}]
    backendRefs: [{name: reviews-v2, port: 9080}]
  - backendRefs: [{name: reviews-v1, port: 9080}]
""")
        bound.mesh.wait("jason has stars", lambda: BLACK in as_user("jason"))
        assert {who(as_user("jason")) for _ in range(3)} == {"2"}
        assert {who(as_user("somebody")) for _ in range(3)} == {"1"}
        assert set(versions(bound, 10)) == {"1"}


@pytest.mark.feature("F122")
def test_traffic_is_shifted_to_v3_by_half_and_then_whole(bound: Guide) -> None:
    files = [f"{ROUTES}route-{name}" for name in ("reviews-v1", "reviews-50-v3", "reviews-v3")]
    with bound.routes(f"{ROUTES}route-all-v1"):
        bound.mesh.wait("reviews of v1 only", lambda: set(versions(bound, 20)) == {"1"})
        bound.samples(files[1])
        bound.mesh.wait("reviews of v3, too", lambda: "3" in versions(bound, 10))
        found = pages(bound, 100)
        assert {who(page) for page in found} == {"1", "3"}
        assert 20 <= sum(RED in page for page in found) <= 80
        bound.samples(files[2])
        bound.mesh.wait("reviews of v3 only", lambda: set(versions(bound, 30)) == {"3"})
        assert all(RED in page for page in pages(bound, 20))
        bound.samples(files[0])
        bound.mesh.wait("reviews of v1 again", lambda: set(versions(bound, 10)) == {"1"})


@pytest.mark.feature("F33")
def test_a_timeout_of_half_a_second_leaves_the_page_without_reviews_after_one(bound: Guide) -> None:
    """Ratings that take two seconds are made by a route, where the page asks a VirtualService for a fault."""
    reviews = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews, port: 9080}]
  rules:
  - backendRefs: [{name: reviews-v2, port: 9080}]
"""
    bound.apply(reviews)
    bound.apply("""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: ratings}
spec:
  parentRefs: [{group: "", kind: Service, name: ratings, port: 9080}]
  rules:
  - filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /delay/2}}}]
    backendRefs: [{name: httpbin, port: 8000}]
""")

    def timed() -> tuple[float, str]:
        page, ended, took = bound.curl(PAGE, "-w", "\n%{time_total}").rpartition("\n")
        return float(took) if ended else 0.0, page

    def is_slow() -> bool:
        took, page = timed()
        return took >= 2 and who(page) == "2"

    bound.mesh.wait("the page takes two seconds", is_slow)
    bound.apply(reviews + "    timeouts: {request: 500ms}\n")
    sorry = "Sorry, product reviews are currently unavailable for this book."

    def without() -> float:
        """Seconds; 0 while there are reviews. The product page tries twice, for which ratings would take four."""
        took, page = timed()
        return took if sorry in page else 0

    bound.mesh.wait("no reviews, before the ratings could come", lambda: 0 < without() < 4)
    assert without() >= 1
    bound.delete("httproute/reviews", "httproute/ratings")


@pytest.mark.feature("F37")
def test_a_mirror_gets_what_v1_answers(bound: Guide) -> None:
    """The sample httpbin is the page's `httpbin-v1`."""
    route = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: httpbin}
spec:
  parentRefs: [{group: "", kind: Service, name: httpbin, port: 8000}]
  rules:
  - backendRefs: [{name: httpbin-v1, port: 80}]
"""
    mirror = (
        "    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: httpbin-v2, port: 80}}}]\n"
    )
    bound.apply(_HTTPBIN_V2 + route)
    bound.available()

    def logged(deployment: str, marker: str) -> int:
        return bound.mesh.kubectl("logs", "-n", bound.namespace, f"deploy/{deployment}").stdout.count(marker)

    def asked() -> str:
        """The marker of ten requests."""
        marker = uuid.uuid4().hex
        said = bound.curl(
            f"http://httpbin:8000/anything/{marker}?[1-10]", "-w", "%{http_code}", "-o", "/dev/null"
        )
        assert said == "200" * 10
        return marker

    def both(marker: str) -> tuple[int, int]:
        return logged("httpbin", marker), logged("httpbin-v2", marker)

    bound.mesh.wait("v1 alone answers", lambda: both(asked()) == (10, 0))
    bound.apply(route + mirror)
    bound.mesh.wait("v2 has logged one, too", lambda: logged("httpbin-v2", asked()))
    marker = asked()
    bound.mesh.wait("both have all", lambda: both(marker) == (10, 10))
    bound.delete("httproute/httpbin", "deployment/httpbin-v2", "service/httpbin-v1", "service/httpbin-v2")


_HTTPBIN_V2 = """
apiVersion: v1
kind: Service
metadata: {name: httpbin-v1}
spec:
  ports: [{name: http, port: 80, targetPort: 8080}]
  selector: {app: httpbin, version: v1}
---
apiVersion: v1
kind: Service
metadata: {name: httpbin-v2}
spec:
  ports: [{name: http, port: 80, targetPort: 8080}]
  selector: {app: httpbin, version: v2}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: httpbin-v2}
spec:
  selector: {matchLabels: {app: httpbin, version: v2}}
  template:
    metadata: {labels: {app: httpbin, version: v2}}
    spec:
      containers:
      - {name: httpbin, image: "docker.io/mccutchen/go-httpbin:v2.15.0"}
---
"""


@pytest.mark.feature("F87")
def test_tokens_are_verified_then_required_then_those_of_a_group(bound: Guide) -> None:
    issuer = Issuer("testing@secure.istio.io")
    plain = issuer.token(sub=issuer.name)
    grouped = issuer.token(sub=issuer.name, groups=["group1", "group2"], scope=["scope1", "scope2"])
    url = "http://httpbin:8000/headers"

    def bearer(token: str) -> tuple[str, str]:
        return "-H", f"Authorization: Bearer {token}"

    bound.apply(f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: jwt-example}}
spec:
  targetRefs: [{{kind: Service, group: "", name: httpbin}}]
  jwtRules:
  - issuer: {issuer.name}
    jwks: '{issuer.jwks}'
    outputClaimToHeaders: [{{header: x-jwt-claim-foo, claim: sub}}]
""")
    bound.until("401", url, *bearer("invalidToken"))
    assert bound.code(url) == "200"
    told = json.loads(bound.curl(url, *bearer(plain), "-H", "x-jwt-claim-foo: forged"))["headers"]
    assert told["X-Jwt-Claim-Foo"] == [issuer.name]
    required = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: require-jwt}
spec:
  targetRefs: [{kind: Service, group: "", name: httpbin}]
  action: ALLOW
  rules:
  - from: [{source: {requestPrincipals: [testing@secure.istio.io/testing@secure.istio.io]}}]
"""
    bound.apply(required)
    bound.until("403", url)
    assert bound.code(url, *bearer(plain)) == "200"
    bound.apply(required + '    when: [{key: "request.auth.claims[groups]", values: [group1]}]\n')
    bound.until("403", url, *bearer(plain))
    assert bound.code(url, *bearer(grouped)) == "200"
    bound.delete("requestauthentication/jwt-example", "authorizationpolicy/require-jwt")


@pytest.mark.feature("F40")
def test_a_waypoint_as_egress_gateway_lets_get_out_and_nothing_else(shop: Guide) -> None:
    """What is outside is a service without the mesh, where the page asks httpbin.org. An inline waypoint is no egress
    gateway: it closes hosts that policies are for (test_secured_servers.py)."""
    mesh = shop.mesh
    mesh.kubectl("apply", "-n", shop.outside, "-f", str(SAMPLES / "httpbin.yaml"))
    with make_namespace(mesh) as egress:
        mesh.ambit("waypoint", "apply", "--for", "service", "--enroll-namespace", "-n", egress, "--wait")
        host = f"httpbin-{egress}.example.org"
        shop.apply(_OUTSIDE.replace("HOST", host), egress)
        shop.available(shop.outside)
        shop.until("200", f"http://{host}/get")
        assert shop.code("-X", "POST", f"http://{host}/post") == "200"
        shop.apply(_ONLY_GET, egress)
        shop.until("403", "-X", "POST", f"http://{host}/post")
        assert shop.code(f"http://{host}/get") == "200"

        def is_told() -> bool:
            told = mesh.ambit("flows", "--requests", "--last", "200", "-n", egress, "-o", "json").stdout
            return any(json.loads(line).get("proxy") == f"{egress}/waypoint" for line in told.splitlines())

        mesh.wait("its records", is_told)


_OUTSIDE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: httpbin-org}
spec:
  hosts: [HOST]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DNS
  endpoints: [{address: httpbin.OUTSIDE.svc.cluster.local, ports: {http: 8000}}]
"""
_ONLY_GET = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: httpbin-org}
spec:
  targetRefs: [{kind: ServiceEntry, group: networking.istio.io, name: httpbin-org}]
  action: ALLOW
  rules: [{to: [{operation: {methods: [GET], paths: [/get]}}]}]
"""
