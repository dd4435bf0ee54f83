"""`tls.options` of listeners: what is meant by them, and that none is passed over in silence."""

import pytest

from ambit.ingest.gateway.tls_options import SUITES
from ambit.model.proxy import TlsTerms
from tests.ingest.gateway.build import edge, listener
from tests.ingest.gateway.pairs import Authority, https, secret
from tests.ingest.gateway.test_edge import listeners, status
from tests.ingest.test_mesh import compiler

PAIR = Authority().pair("a.example.com")
SUITE, MODE, VERSION = (
    "gateway.istio.io/tls-cipher-suites",
    "gateway.istio.io/tls-terminate-mode",
    "ambit.io/tls-min-version",
)


def with_options(options: dict[str, str], protocol: str = "HTTPS") -> dict[str, object]:
    given = https("https", "a")
    return {**given, "protocol": protocol, "tls": {**given["tls"], "options": options}}


@pytest.mark.parametrize("protocol", ["HTTPS", "TLS"])
@pytest.mark.parametrize(
    ("options", "terms"),
    [
        ({}, TlsTerms()),
        ({MODE: "SIMPLE", VERSION: "1.2"}, TlsTerms()),
        ({VERSION: "1.3"}, TlsTerms(newest_only=True)),
        (
            {SUITE: "ECDHE-RSA-AES256-GCM-SHA384, AES128-SHA,AES128-SHA"},
            TlsTerms(("ECDHE-RSA-AES256-GCM-SHA384", "AES128-SHA")),
        ),
        ({SUITE: ",".join(sorted(SUITES))}, TlsTerms(tuple(sorted(SUITES)))),
    ],
)
def test_what_options_mean(options: dict[str, str], terms: TlsTerms, protocol: str) -> None:
    made = compiler(edge(with_options(options, protocol)), secret("a", PAIR))
    assert [each.terms for each in made.proxies["default/edge"].listeners] == [terms]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({SUITE: "AES128-SHA,RC4-SHA,TLS_AES_128_GCM_SHA256"}, "'RC4-SHA', 'TLS_AES_128_GCM_SHA256'"),
        ({SUITE: ""}, "'': no suite"),
        ({SUITE: "AES128-SHA", VERSION: "1.3"}, "about TLS 1.2, which ambit.io/tls-min-version leaves out"),
        ({VERSION: "1.1"}, "'1.1' is none of 1.2, 1.3"),
        ({MODE: "MUTUAL"}, "MUTUAL cannot be had: spec.tls.frontend asks clients for certificates"),
        (
            {"example.com/tls": "strong"},
            "example.com/tls is not known, only gateway.istio.io/tls-cipher-suites",
        ),
    ],
)
def test_what_is_not_known_refuses_the_listener(options: dict[str, str], text: str) -> None:
    made = compiler(edge(with_options(options), listener()), secret("a", PAIR))
    assert listeners(made)["https"]["Accepted"] == ("False", "UnsupportedValue")
    message = status(made).listeners[0].conditions[0].message
    assert message.startswith("tls.options: ") and text in message
    assert [each.name for each in made.proxies["default/edge"].listeners] == ["http"]


def test_tls_that_ends_elsewhere_has_no_options() -> None:
    passed = listener("pass", 443, "TLS", tls={"mode": "Passthrough", "options": {VERSION: "1.2"}})
    made = compiler(edge(passed))
    assert listeners(made)["pass"]["Accepted"] == ("False", "UnsupportedValue")
