"""One authority follows another in a running control plane: Secrets, ConfigMaps, replicas, answers of nodes."""

import base64
import datetime as dt

import msgspec
import pytest
from cryptography import x509

from ambit.ca.authority import Authority, AuthorityFiles
from ambit.ca.bundle import certificates
from ambit.ca.trust import Trust
from ambit.control.identity.trust import acknowledged
from ambit.kube import resource as kinds
from ambit.kube.errors import NotFound
from tests.ca.authorities import intermediate_of, revoked_by
from tests.control.test_pieces import ask
from tests.control.test_process import SETTINGS, WEB, agent_token, client, eventually, make_pod, running
from tests.control.world import peer_certificate, signing_request

__all__ = ["client"]

NOW = dt.datetime.now(dt.UTC)


def files(authority):
    return AuthorityFiles(authority.certificate, authority.key, authority.roots)


async def plug_in(client, wanted, revoked=""):
    """Put an authority into the Secret `cacerts`, as `kubectl create secret generic` does."""
    texts = {
        "ca-cert.pem": wanted.certificate,
        "ca-key.pem": wanted.key,
        "root-cert.pem": wanted.roots,
        "cert-chain.pem": wanted.chain,
        "ca-crl.pem": revoked,
    }
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    secret = {"metadata": {"name": "cacerts", "namespace": "ambit-system"}, "type": "Opaque", "data": data}
    try:
        await client.patch(kinds.SECRETS, "cacerts", {"data": data}, "ambit-system")
    except NotFound:
        await client.create(kinds.SECRETS, secret, "ambit-system")


class Mesh:
    """What nodes and people see, and one node's answers."""

    def __init__(self, client):
        self.client = client

    async def trust(self):
        try:
            found = await self.client.get(kinds.CONFIG_MAPS, "ambit-trust", "ambit-system")
        except NotFound:
            return None
        data = found["data"]
        return Trust(data["root-cert.pem"], data["ca-crl.pem"], data["signer"])

    async def acknowledge(self, trust, pod="agent"):
        annotation = {"metadata": {"annotations": {"ambit.io/trust": trust.digest}}}
        await self.client.patch(kinds.PODS, pod, annotation, "ambit-system")

    async def trusted(self, *authorities):
        """Wait until exactly the roots of these are trusted."""
        wanted = {root for each in authorities for root in certificates(each.roots)}
        return await eventually(
            self.trust, lambda trust: trust is not None and set(certificates(trust.roots)) == wanted
        )

    async def published(self, namespace, name="istio-ca-root-cert", key="root-cert.pem"):
        try:
            return (await self.client.get(kinds.CONFIG_MAPS, name, namespace))["data"][key]
        except NotFound:
            return None


@pytest.fixture
async def mesh(client):
    return Mesh(client)


async def issuer(plane, token):
    """The key identifier of who signed a new certificate, and the roots that came along."""
    chain = await plane.certificate(signing_request(WEB), token)
    leaf = x509.load_pem_x509_certificate(chain[0].encode())
    extension = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    return extension.value.key_identifier.hex(), chain[-1]


async def status(plane):
    _, body = await ask(plane.ports.debug, b"GET /debug/trust HTTP/1.1\r\n\r\n")
    return msgspec.json.decode(body)


async def prepared(client):
    enabled = {"ambient.istio.io/redirection": "enabled"}
    await make_pod(client, "shop", "web", "web-0", annotations=enabled)
    return await agent_token(client)


async def test_a_damaged_root_of_the_operator_is_logged_and_costs_the_others_nothing(client, mesh, caplog):
    await prepared(client)
    async with running(client) as plane:
        old, new = plane.authority, files(Authority.create("cluster.local", NOW))
        damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        await plug_in(client, msgspec.structs.replace(new, roots=new.roots + damaged))

        async def warnings():
            return [vars(each) for each in caplog.records if each.getMessage() == "damaged root"]

        warned = await eventually(warnings)
        await mesh.trusted(old, new)
    assert "ambit-system/cacerts" in str(warned) and "PEM block 2 cannot be read" in str(warned)


async def test_a_plugged_in_authority_follows_when_every_node_is_ready(client, mesh):
    token = await prepared(client)
    new = Authority.create("cluster.local", NOW)
    async with running(client) as plane:
        old = plane.authority
        await mesh.acknowledge(await mesh.trusted(old))
        await plug_in(client, files(new))
        both = await mesh.trusted(old, new)
        signer, roots = await issuer(plane, token)
        assert signer == both.signer != new.signer, "no node has acknowledged the new root"
        assert set(certificates(roots)) == set(certificates(both.roots))
        await eventually(lambda: mesh.published("shop"), lambda text: text == both.roots)
        waiting = await status(plane)
        assert (waiting["phase"], waiting["behind"], waiting["source"]) == ("spreading", ["node1"], "cacerts")
        assert waiting["signsFrom"] == "istio-ca-secret", "it signs until every node trusts the other"

        await mesh.acknowledge(both)
        plane.trusts(both)
        renewing = await eventually(mesh.trust, lambda trust: trust.signer == new.signer)
        assert renewing.roots == both.roots
        assert (await issuer(plane, token))[0] == new.signer
        renewed = await status(plane)
        assert (renewed["phase"], renewed["signsFrom"]) == ("renewing", "cacerts")
        plane.authority = new
        assert await peer_certificate(plane, "istiod.istio-system.svc")

        await mesh.acknowledge(renewing)
        final = await mesh.trusted(new)
        await eventually(lambda: mesh.published("shop"), lambda text: text == final.roots)
        assert (await status(plane))["phase"] == "steady"


async def test_replicas_agree_whoever_the_node_talks_to(client, mesh):
    """The second replica serves the node, the first one leads."""
    token = await prepared(client)
    new = Authority.create("cluster.local", NOW)
    second_settings = msgspec.structs.replace(SETTINGS, instance="two")
    async with running(client) as first, running(client, second_settings) as second:
        await mesh.acknowledge(await mesh.trusted(first.authority))
        await plug_in(client, files(new))
        both = await mesh.trusted(first.authority, new)
        for plane in (first, second):
            assert (await issuer(plane, token))[0] == both.signer
        await mesh.acknowledge(both)
        for plane in (first, second):
            plane.trusts(both)
            await eventually(lambda plane=plane: issuer(plane, token), lambda found: found[0] == new.signer)
            assert (await status(plane))["behind"] == ["node1"]


async def test_the_next_control_plane_goes_on_in_the_middle(client, mesh):
    token = await prepared(client)
    new = Authority.create("cluster.local", NOW)
    async with running(client) as plane:
        old = plane.authority
        await mesh.acknowledge(await mesh.trusted(old))
        await plug_in(client, files(new))
        both = await mesh.trusted(old, new)
    # The Secret that held the old key is gone from the operator's hands.
    await client.delete(kinds.SECRETS, "istio-ca-secret", "ambit-system")
    async with running(client) as plane:
        assert (await issuer(plane, token))[0] == both.signer
        await mesh.acknowledge(both)
        await mesh.acknowledge(await eventually(mesh.trust, lambda trust: trust.signer == new.signer))
        await mesh.trusted(new)


async def test_an_authority_changed_while_the_control_plane_was_away_is_no_break(client, mesh):
    async with running(client) as plane:
        old = plane.authority
        await mesh.trusted(old)
    await prepared(client)
    new = Authority.create("cluster.local", NOW)
    await plug_in(client, files(new))
    async with running(client):
        assert (await mesh.trusted(old, new)).signer != new.signer


async def test_a_node_that_never_answers_is_waited_for_as_long_as_a_certificate_lives(client, mesh):
    await prepared(client)
    new = Authority.create("cluster.local", NOW)
    now = NOW

    settings = msgspec.structs.replace(SETTINGS, leaf_lifetime=dt.timedelta(hours=1))
    async with running(client, settings, wall=lambda: now) as plane:
        old = plane.authority
        await mesh.trusted(old)
        await plug_in(client, files(new))
        await mesh.trusted(old, new)
        now += dt.timedelta(hours=2)

        async def begun():
            # Any change makes the leader look.
            await client.patch(kinds.PODS, "agent", {"metadata": {"labels": {"now": "1"}}}, "ambit-system")
            return (await status(plane))["since"]

        # A clock that jumps is no time that passed.
        await eventually(begun, lambda since: since == now.timestamp())
        assert (await status(plane))["phase"] == "spreading"


async def test_time_that_passed_counts_for_the_next_leader(client, mesh):
    await prepared(client)
    new = Authority.create("cluster.local", NOW)
    async with running(client) as plane:
        old = plane.authority
        await mesh.trusted(old)
        await plug_in(client, files(new))
        await mesh.trusted(old, new)
    async with running(client, wall=lambda: NOW + dt.timedelta(hours=25)):
        await eventually(mesh.trust, lambda trust: trust.signer == new.signer)


async def test_what_cannot_be_followed_changes_nothing_and_is_shown(client, mesh):
    token = await prepared(client)
    new = Authority.create("cluster.local", NOW)
    async with running(client) as plane:
        before = await mesh.trusted(plane.authority)
        await mesh.acknowledge(before)
        await plug_in(client, AuthorityFiles(new.certificate, plane_key(), new.roots))
        shown = await eventually(lambda: status(plane), lambda found: found["problem"])
        assert "ambit-system/cacerts: ca-key.pem is not the key of ca-cert.pem" in shown["problem"]
        assert (await issuer(plane, token))[0] == before.signer
        assert await mesh.trust() == before
        _, metrics = await ask(plane.ports.debug, b"GET /metrics HTTP/1.1\r\n\r\n")
        assert b"ambit_trust_problem 1" in metrics
        await plug_in(client, files(new))
        await mesh.trusted(plane.authority, new)
        assert (await status(plane))["problem"] == ""


def plane_key():
    return Authority.create("other", NOW).key


async def test_revocation_lists_reach_nodes_and_namespaces_and_can_be_withdrawn(client, mesh):
    root = Authority.create("cluster.local", NOW - dt.timedelta(days=1))
    plugged = intermediate_of(root, NOW)
    await plug_in(client, plugged)
    async with running(client) as plane:
        await mesh.trusted(root)
        assert await mesh.published("shop", "istio-ca-crl", "ca-crl.pem") is None
        lists = revoked_by(root, [4711], NOW, dt.timedelta(days=2))
        await plug_in(client, plugged, lists)
        held = await eventually(mesh.trust, lambda trust: trust.revoked)
        assert lists.strip() in held.revoked
        await eventually(
            lambda: mesh.published("shop", "istio-ca-crl", "ca-crl.pem"), lambda text: text == held.revoked
        )
        assert (await status(plane))["revocationEnd"] is not None
        await plug_in(client, plugged, "nonsense")
        shown = await eventually(lambda: status(plane), lambda found: found["problem"])
        assert "something in it that is no revocation list" in shown["problem"]
        assert await mesh.trust() == held
        await plug_in(client, plugged)
        await eventually(mesh.trust, lambda trust: not trust.revoked)
        await eventually(
            lambda: mesh.published("shop", "istio-ca-crl", "ca-crl.pem"), lambda text: text == ""
        )


async def test_without_any_secret_the_mesh_goes_on_and_takes_an_unfinished_change_back(client, mesh):
    token = await prepared(client)
    async with running(client) as plane:
        old = await mesh.trusted(plane.authority)
        await plug_in(client, files(Authority.create("cluster.local", NOW)))
        await eventually(mesh.trust, lambda trust: len(certificates(trust.roots)) == 2)
        for name in ("istio-ca-secret", "cacerts"):
            await client.delete(kinds.SECRETS, name, "ambit-system")
        assert await eventually(mesh.trust, lambda trust: len(certificates(trust.roots)) == 1) == old
        assert (await issuer(plane, token))[0] == old.signer
        assert (await status(plane))["source"] == ""


async def test_the_state_comes_back_when_somebody_deletes_it(client, mesh):
    await prepared(client)
    new = Authority.create("cluster.local", NOW)
    async with running(client) as plane:
        old = plane.authority
        await mesh.trusted(old)
        await client.delete(kinds.SECRETS, "ambit-ca", "ambit-system")
        await plug_in(client, files(new))
        await mesh.trusted(old, new)
        assert await client.get(kinds.SECRETS, "ambit-ca", "ambit-system")


async def test_what_nodes_are_told_is_put_right_when_somebody_changes_it(client, mesh):
    async with running(client) as plane:
        told = await mesh.trusted(plane.authority)
        changed = {"data": {"root-cert.pem": "mine", "signer": "me"}}
        await client.patch(kinds.CONFIG_MAPS, "ambit-trust", changed, "ambit-system")
        await eventually(mesh.trust, lambda trust: trust == told)
        await client.delete(kinds.CONFIG_MAPS, "ambit-trust", "ambit-system")
        await eventually(mesh.trust, lambda trust: trust == told)


def test_a_node_has_acknowledged_when_all_its_agents_have():
    agents = [("one", "new"), ("two", "old"), ("two", "new"), ("three", ""), ("four", "old")]
    assert acknowledged(agents, ["one", "five"]) == {
        "one": "new", "two": "", "three": "", "four": "old", "five": ""
    }  # fmt: skip
