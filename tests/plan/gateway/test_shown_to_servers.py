"""Servers that ask the gateway for a certificate."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ingest.build import Given, service
from tests.ingest.gateway.build import GROUP, roots, to, to_edge
from tests.ingest.gateway.build import edge as gateway
from tests.ingest.gateway.pairs import Authority, secret
from tests.plan.gateway.conftest import Edge
from tests.plan.waypoint.echo import Echo

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

NAME, TARGET = "db.example.com", 8443
SERVERS, FRIENDS, STRANGERS = Authority("servers"), Authority("friends"), Authority("strangers")


@pytest.fixture(scope="module")
def asking(edge: Edge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Echo]:
    """A server that lets in who has a certificate of the friends' authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=FRIENDS.root)
    context.verify_mode, context.verify_flags = ssl.CERT_REQUIRED, ssl.VerifyFlags.VERIFY_DEFAULT
    pair = SERVERS.pair(NAME)
    file: Path = tmp_path_factory.mktemp("server") / "pair.pem"
    file.write_text(pair.chain + pair.key)
    context.load_cert_chain(file)
    echo = Echo(edge.servers["one"], "one", TARGET, context)
    yield echo
    echo.close()


def objects(shown: Authority | None) -> list[Given]:
    tls = {"backend": {"clientCertificateRef": {"name": "shown"}}} if shown is not None else {}
    port = {"name": "https", "port": 443, "targetPort": TARGET}
    policy = {
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "db"}],
            "validation": {
                "hostname": NAME,
                "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "servers"}],
            },
        },
    }
    return [
        service("db", {"app": "one"}, ip="10.96.0.77", ports=[port]),
        (f"backendtlspolicies.{GROUP}", policy),
        roots("servers", SERVERS.root),
        *([secret("shown", shown.pair("edge"))] if shown is not None else []),
        gateway(tls=tls),
        to_edge({"backendRefs": [to("db", 443)]}),
    ]


def test_a_server_that_asks_is_shown_the_gateways_certificate(edge: Edge, asking: Echo) -> None:
    edge.apply(*objects(STRANGERS))
    assert edge.said(NAME) == "503"
    edge.apply(*objects(FRIENDS))
    assert edge.said(NAME) == "one"
    edge.apply(*objects(None))
    assert edge.said(NAME) == "503"
    assert len(asking.seen) == 1
