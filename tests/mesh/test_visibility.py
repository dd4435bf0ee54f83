"""Who sees hosts outside, as the mesh's settings say."""

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.pods import apply_in, make_namespace, web_and_client
from tests.mesh.settings import with_mesh_config
from tests.mesh.test_dns import entry, resolve

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]
SETTINGS = """
serviceEntryVisibility:
  defaultVisibility: NAMESPACE
  policies:
  - visibility: PUBLIC
    matchingRules: [{namespaceSelector: {matchLabels: {team: edge}}}]
  - visibility: NONE
    matchingRules: [{namespaceSelector: {matchLabels: {team: closed}}}]
"""
CONDITION = "{.status.conditions[?(@.type=='istio.io/VisibilityApplied')].reason}"
SHOP, EDGE = "pay.example", "api.example"


@pytest.mark.feature("N47")
def test_settings_hide_hosts_from_other_namespaces(mesh: Mesh) -> None:
    with with_mesh_config(mesh, SETTINGS) as put, make_namespace(mesh) as shop, make_namespace(mesh) as edge:
        mesh.kubectl("label", "namespace", edge, "team=edge")
        for namespace, host, ip in ((shop, SHOP, "240.99.0.1"), (edge, EDGE, "240.99.0.2")):
            outside = entry("one", host, addresses=[ip], resolution="STATIC")
            apply_in(mesh, namespace, [web_and_client()[-1], outside])

        def seen(namespace: str) -> dict[str, list[str]]:
            found = resolve(mesh, namespace, SHOP, EDGE)
            return {host: told for host, told in found.items() if isinstance(told, list)}

        def reasons() -> tuple[str, ...]:
            words = ("get", "serviceentry", "one", "-o", f"jsonpath={CONDITION}")
            return tuple(mesh.kubectl(*words, "-n", each).stdout for each in (shop, edge))

        everything = {SHOP: ["240.99.0.1"], EDGE: ["240.99.0.2"]}
        mesh.wait("shop sees both", lambda: seen(shop) == everything)
        mesh.wait("edge sees its own", lambda: EDGE in seen(edge))
        assert seen(edge) == {EDGE: ["240.99.0.2"]}, "for others the host does not exist"
        mesh.wait("statuses say so", lambda: reasons() == ("Namespace", "Public"))

        mesh.kubectl("label", "namespace", edge, "team=closed", "--overwrite")
        mesh.wait("nobody sees it any more", lambda: seen(edge) == {} and EDGE not in seen(shop))
        mesh.wait("its status says so", lambda: reasons() == ("Namespace", "None"))

        put("{}")
        mesh.wait("without settings all see all", lambda: seen(shop) == everything == seen(edge))
        mesh.wait("and statuses say nothing", lambda: reasons() == ("", ""))

        put("serviceEntryVisibilty: {}", taken=False)

        def refusal() -> bool:
            words = ("logs", "-n", "ambit-system", "-l", "app=istiod", "--tail=20")
            return "serviceEntryVisibilty is not known" in mesh.kubectl(*words, check=False).stdout

        mesh.wait("a control plane does not start with what it does not know", refusal)
        assert seen(edge) == everything, "the one that runs goes on"
