import datetime as dt

import grpc
import pytest
from cryptography import x509

from tests.control.world import World, pod_json, review, signing_request

WEB = "spiffe://cluster.local/ns/shop/sa/web"


@pytest.fixture
async def world():
    world = World()
    world.api.pods.append(pod_json("web-0"))
    async with world.serving():
        yield world


async def refused(world, status, *arguments, **options):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.certificate(*arguments, **options)
    assert caught.value.code() is status
    return caught.value.details()


async def test_a_node_gets_its_pods_certificate(world, caplog):
    world.watch_pod(pod_json("agent", "ambit-system", "ztunnel"))
    world.watch_pod(pod_json("web-0"))
    chain = await world.certificate(signing_request(WEB), impersonate=WEB)
    leaf = x509.load_pem_x509_certificate(chain[0].encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [WEB]
    assert chain[-1] == world.authority.roots
    assert leaf.not_valid_after_utc - world.now.replace(microsecond=0) == dt.timedelta(days=1)
    assert world.counters.value("ambit_certificates_issued_total") == 1


async def test_the_api_is_asked_when_the_watch_lags(world):
    await world.certificate(signing_request(WEB))


async def test_a_token_is_reviewed_once_for_many_certificates(world):
    for _ in range(3):
        await world.certificate(signing_request(WEB))
    assert world.api.reviewed == 1


@pytest.mark.parametrize(
    ("reason", "token"),
    [("no single bearer token", ""), ("unknown token", "stolen"), ("no bearer token", " ")],
)
async def test_a_caller_must_show_a_valid_token(world, reason, token):
    details = await refused(world, grpc.StatusCode.UNAUTHENTICATED, signing_request(WEB), token=token)
    assert reason in details


@pytest.mark.parametrize(
    ("reason", "status", "answer"),
    [
        (
            "audience",
            "UNAUTHENTICATED",
            review("ambit-system", "ztunnel", "agent", "uid-agent", audiences=["x"]),
        ),
        ("not bound", "PERMISSION_DENIED", review("ambit-system", "ztunnel", "", "")),
        ("does not exist", "PERMISSION_DENIED", review("ambit-system", "ztunnel", "agent", "former-uid")),
        (
            "runs on",
            "PERMISSION_DENIED",
            review("ambit-system", "ztunnel", "agent", "uid-agent", node="node2"),
        ),
        ("only its own", "PERMISSION_DENIED", review("shop", "other", "other-0", "uid-other-0")),
        (
            "service account's",
            "UNAUTHENTICATED",
            {"authenticated": True, "audiences": ["istio-ca"], "user": {"username": "admin"}},
        ),
    ],
)
async def test_callers_that_get_nothing(world, reason, status, answer):
    world.api.pods.append(pod_json("other-0", account="other"))
    world.api.reviews["theirs"] = answer
    details = await refused(world, grpc.StatusCode[status], signing_request(WEB), token="theirs")
    assert reason in details


@pytest.mark.parametrize(
    ("reason", "pod"),
    [
        ("no enrolled pod", pod_json("web-1", node="node2", account="db")),
        ("no enrolled pod", pod_json("web-1", account="db", phase="Succeeded")),
        ("no enrolled pod", pod_json("web-1", account="db", labels={"istio.io/dataplane-mode": "none"})),
        ("no enrolled pod", pod_json("web-1", namespace="ambit-system", account="db")),
    ],
)
async def test_identities_that_are_not_on_the_node(world, reason, pod, caplog):
    world.api.pods.append(pod)
    identity = f"spiffe://cluster.local/ns/{pod['metadata']['namespace']}/sa/db"
    details = await refused(world, grpc.StatusCode.PERMISSION_DENIED, signing_request(identity))
    assert reason in details
    [record] = [each for each in caplog.records if each.message == "certificate refused"]
    assert record.fields["identity"] == identity
    assert "ambit-system/ztunnel" in str(record.fields["caller"])
    assert world.counters.value("ambit_certificates_refused_total", status="permission_denied") == 1


@pytest.mark.parametrize(
    ("reason", "csr", "impersonate"),
    [
        ("no identity", signing_request(), None),
        ("2 URIs", signing_request(WEB, WEB), None),
        ("not a certificate", "nonsense", None),
        ("signing request for", signing_request(WEB), "spiffe://cluster.local/ns/shop/sa/db"),
    ],
)
async def test_requests_that_make_no_sense(world, reason, csr, impersonate):
    details = await refused(world, grpc.StatusCode.INVALID_ARGUMENT, csr, impersonate=impersonate)
    assert reason in details


async def test_another_trust_domain(world):
    csr = signing_request("spiffe://other/ns/shop/sa/web")
    assert "trust domain" in await refused(world, grpc.StatusCode.PERMISSION_DENIED, csr)


async def test_nothing_is_issued_while_the_api_is_away(world):
    world.api.away = True
    assert "cannot be reviewed" in await refused(world, grpc.StatusCode.UNAVAILABLE, signing_request(WEB))
    world.api.away = False
    await world.certificate(signing_request(WEB))
    world.api.away = True
    details = await refused(world, grpc.StatusCode.UNAVAILABLE, signing_request(WEB))
    assert "cannot be looked up" in details


async def test_what_the_watch_shows_is_issued_while_the_api_is_away(world):
    world.watch_pod(pod_json("agent", "ambit-system", "ztunnel"))
    world.watch_pod(pod_json("web-0"))
    await world.certificate(signing_request(WEB))
    world.api.away = True
    await world.certificate(signing_request(WEB))


async def test_a_node_is_limited():
    world = World()
    world.api.pods.append(pod_json("web-0"))
    async with world.serving():
        csr = signing_request(WEB)
        for _ in range(50):
            await world.signing._authenticator.caller((("authorization", "Bearer token-of-node1"),))
            assert world.signing._agent_limit.allow("node1", 0.0)
        await refused(world, grpc.StatusCode.RESOURCE_EXHAUSTED, csr)
