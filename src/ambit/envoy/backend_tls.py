"""TLS to servers that the mesh gave no certificate: checked against the roots and names that a policy says."""

from collections.abc import Iterable
from typing import Any

import msgspec
from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2

from ambit.envoy.words import from_ads, pack
from ambit.model.backend_tls import BackendTls

_Matcher = common_pb2.SubjectAltNameMatcher
_TLS_1_2 = common_pb2.TlsParameters.TLSv1_2
_TLS_1_3 = common_pb2.TlsParameters.TLSv1_3


class Spoken(msgspec.Struct, frozen=True):
    """TLS as a proxy speaks it: a server that asks for a certificate is shown the one in the secret `certificate`."""

    how: BackendTls
    certificate: str = ""


def socket(spoken: Spoken, protocols: Iterable[str]) -> Any:
    """The transport socket; `protocols` are offered (ALPN). A certificate's name may have a wildcard (RFC 6125)."""
    given = spoken.how
    names = [_Matcher(san_type=_Matcher.DNS, matcher=_exact(each)) for each in given.names]
    uris = [_Matcher(san_type=_Matcher.URI, matcher=_exact(each)) for each in given.uris]
    context = tls_pb2.UpstreamTlsContext(
        sni=given.hostname,
        common_tls_context=tls_pb2.CommonTlsContext(
            alpn_protocols=protocols,
            tls_params=common_pb2.TlsParameters(
                tls_minimum_protocol_version=_TLS_1_2, tls_maximum_protocol_version=_TLS_1_3
            ),
            validation_context=common_pb2.CertificateValidationContext(
                trusted_ca=_roots(given),
                match_typed_subject_alt_names=[*names, *uris],
            ),
        ),
    )
    if spoken.certificate:
        shown = context.common_tls_context.tls_certificate_sds_secret_configs
        shown.add(name=spoken.certificate, sds_config=from_ads())
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=pack(context))


def _roots(given: BackendTls) -> Any:
    if given.roots_file:
        return base_pb2.DataSource(filename=given.roots_file)
    return base_pb2.DataSource(inline_string=given.roots)


def _exact(text: str) -> Any:
    return string_pb2.StringMatcher(exact=text)
