"""A consumer's routes never deny a service with an inline waypoint to others: only its owner's entries can."""

from typing import Any

import pytest

from ambit.ingest.waypoints.inline import MOST_IN_NAMESPACE
from tests.ingest.build import Given, service
from tests.ingest.gateway import test_backend_tls as backend_tls
from tests.ingest.gateway.build import bound, grpc_route, namespace, parent, route, to
from tests.ingest.gateway.test_inline import ADMIN, INLINE, KEY
from tests.ingest.test_mesh import compiler
from tests.ingest.test_unenforced import WEB_SERVICE, policy

HTTP = {"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http"}
WEB = bound(service("web", {"app": "web"}, ports=[HTTP]), "waypoint")
OWN = service("own", {"app": "own"}, namespace="mallory")
VICTIM = {**parent("web"), "namespace": "default"}
BASE = (WEB, OWN, INLINE, namespace("default"), namespace("mallory"))


def consumer(*rules: dict[str, Any], **more: Any) -> Given:
    return route(*rules, namespace="mallory", parents=(VICTIM,), **more)


REWRITES: dict[str, Any] = {
    "filters": [
        {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/"}}}
    ],
    "backendRefs": [to("own")],
}


@pytest.mark.parametrize(
    "given", [consumer(REWRITES), consumer({"matches": [{"method": "GET"}], **REWRITES})]
)
def test_a_rewrite_of_a_consumer_does_not_deny_the_service(given: Given) -> None:
    made = compiler(*BASE, policy(WEB_SERVICE, rules=[ADMIN]), given)
    found = made.services[KEY]
    assert found.inline is not None and found.rules is not None
    assert not made.closed and not made.findings
    assert any("mallory" in each.name for table in found.inline for each in table.hosts[0].entries)


def test_tls_to_a_backend_of_a_consumer_does_not_deny_the_service() -> None:
    resource, body = backend_tls.policy(target={"name": "own"})
    tls = resource, {**body, "metadata": {**body["metadata"], "namespace": "mallory"}}
    roots = backend_tls.roots(namespace="mallory")
    rules = policy(WEB_SERVICE, rules=[ADMIN])
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "own", "port": 80}}}
    back = to("web", namespace="default")
    for each in (
        consumer({"backendRefs": [to("own")]}),
        consumer({"filters": [mirror], "backendRefs": [back]}),
    ):
        made = compiler(*BASE, tls, roots, rules, each)
        assert made.services["mallory/own.mallory.svc.cluster.local"].backend_tls
        assert not made.closed
        assert made.services[KEY].inline is not None


def test_many_routes_of_consumers_do_not_deny_the_service() -> None:
    """9 MiB of routes, some of each kind, in two namespaces."""
    headers = [{"name": f"h{number}", "value": "x" * 4000} for number in range(16)]
    rules = [{"matches": [{"headers": headers}], "backendRefs": [to("own")]} for _ in range(16)]
    grpc = [{"matches": [{"headers": headers}], "backendRefs": [to("own")]} for _ in range(16)]
    given = [consumer(*rules, name=f"big{number}") for number in range(5)]
    given += [
        grpc_route(*grpc, name=f"grpc{number}", namespace="eve", parents=(VICTIM,)) for number in range(5)
    ]
    made = compiler(*BASE, *given)
    assert not made.closed
    found = made.services[KEY]
    assert found.inline is not None and found.waypoint is None


def test_many_routes_of_the_owner_still_deny_the_service() -> None:
    """A node carries no more than a share for each namespace."""
    headers = [{"name": f"h{number}", "value": "x" * 4000} for number in range(16)]
    rules = [{"matches": [{"headers": headers}], "backendRefs": [to("web")]} for _ in range(16)]
    count = MOST_IN_NAMESPACE // (16 * 16 * 4000) + 1
    made = compiler(*BASE, *(route(*rules, name=f"big{number}") for number in range(count)))
    assert list(made.closed) == [KEY]
