"""A tenant has the control plane fetch keys of tokens from another tenant's Service: it is not dialled, and a tenant
that is allowed to name the Service does not learn how it answers."""

import json

import pytest

from tests.abuse.tenant import Attacker, Victim

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]


def rules(url: str) -> dict[str, object]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "oracle"},
        "spec": {
            "targetRefs": [{"kind": "Service", "group": "", "name": "mine"}],
            "jwtRules": [{"issuer": "x", "jwksUri": url}],
        },
    }


MINE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "mine"},
    "spec": {"selector": {"app": "mine"}, "ports": [{"port": 80}]},
}


def said(attacker: Attacker, url: str) -> str:
    """What the status of the rules says of this URL; empty before it says something."""
    found = attacker.kubectl("get", "requestauthentication", "oracle", "-o", "json", check=True)
    conditions = json.loads(found.stdout).get("status", {}).get("conditions", [])
    messages = [each["message"] for each in conditions if each["type"] == "ambit.io/KeysFetched"]
    return next((each for each in messages if url.split("/")[2] in each), "")


def test_a_tenant_learns_nothing_of_services_of_others(attacker: Attacker, victim: Victim) -> None:
    url = f"http://web.{victim.namespace}.svc.cluster.local/secret"
    attacker.apply(MINE, rules(url))
    attacker.mesh.wait("the refusal", lambda: said(attacker, url))
    message = said(attacker, url)
    assert f"ReferenceGrant in namespace {victim.namespace}" in message
    grant = {
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": {"name": "keys"},
        "spec": {
            "from": [
                {
                    "group": "security.istio.io",
                    "kind": "RequestAuthentication",
                    "namespace": attacker.namespace,
                }
            ],
            "to": [{"group": "", "kind": "Service", "name": "web"}],
        },
    }
    victim.apply(grant)
    attacker.mesh.wait("the grant", lambda: "ReferenceGrant" not in said(attacker, url))
    # It answers with 200 and no keys.
    assert f"{url} is not available" in said(attacker, url)
    victim.mesh.kubectl("delete", "referencegrant", "keys", "-n", victim.namespace)
