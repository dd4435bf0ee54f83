"""`tls.options` of listeners: what is meant by them, and that none is passed over in silence."""

import pytest

from ambit.ingest.gateway.tls_options import SUITES
from ambit.model.proxy import TlsTerms
from tests.ingest.gateway.build import edge, listener, roots
from tests.ingest.gateway.pairs import Authority, https, secret
from tests.ingest.gateway.test_edge import listeners, status
from tests.ingest.test_mesh import compiler

PAIR = Authority().pair("a.example.com")
SUITE, MODE, VERSION, HTTP3 = (
    "gateway.istio.io/tls-cipher-suites",
    "gateway.istio.io/tls-terminate-mode",
    "ambit.io/tls-min-version",
    "ambit.io/http3",
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
        ({HTTP3: "false"}, TlsTerms()),
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
        ({HTTP3: "yes"}, "ambit.io/http3: 'yes' is neither true nor false"),
        ({MODE: "ISTIO_MUTUAL"}, "'ISTIO_MUTUAL' is neither SIMPLE nor MUTUAL"),
        ({MODE: "MUTUAL", HTTP3: "true"}, "QUIC asks nobody for a certificate"),
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


def test_http3_is_for_listeners_of_requests() -> None:
    made = compiler(edge(with_options({HTTP3: "true"}), listener()), secret("a", PAIR))
    assert [each.terms.http3 for each in made.proxies["default/edge"].listeners] == [True, False]
    made = compiler(edge(with_options({HTTP3: "true"}, "TLS")), secret("a", PAIR))
    assert listeners(made)["https"]["Accepted"] == ("False", "UnsupportedValue")


def test_http3_lets_nobody_past_the_certificates_that_its_port_asks_for() -> None:
    """Nothing is shown by QUIC. Another port is another matter."""
    asking = {"validation": {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "r"}]}}
    given = (with_options({HTTP3: "true"}), roots("r", Authority("friends").root), secret("a", PAIR))
    made = compiler(edge(given[0], tls={"frontend": {"default": asking}}), *given[1:])
    assert listeners(made)["https"]["Accepted"] == ("False", "UnsupportedValue") and not made.proxies
    frontend = {"default": asking, "perPort": [{"port": 443, "tls": {}}]}
    made = compiler(edge(given[0], tls={"frontend": frontend}), *given[1:])
    assert listeners(made)["https"]["Accepted"] == ("True", "Accepted")


@pytest.mark.parametrize("first", [True, False])
def test_http3_and_a_listener_of_udp_cannot_have_one_port(first: bool) -> None:
    both = [with_options({HTTP3: "true"}), listener("udp", 443, "UDP")]
    made = compiler(edge(*(both if first else reversed(both))), secret("a", PAIR))
    loser = "udp" if first else "https"
    assert {name for name, each in listeners(made).items() if each["Conflicted"][0] == "True"} == {loser}
    assert listeners(made)[loser]["Conflicted"][1] == "ProtocolConflict"
    made = compiler(edge(with_options({}), both[1]), secret("a", PAIR))
    assert all(each["Accepted"] == ("True", "Accepted") for each in listeners(made).values())
