"""Mutual TLS of HBONE: TLS 1.3 only, SPIFFE certificates, trust from one secret, servers pinned by
identity."""

from collections.abc import Iterable, Mapping
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.quic.v3 import quic_transport_pb2
from envoy.extensions.transport_sockets.tls.v3 import (
    common_pb2,
    secret_pb2,
    tls_pb2,
    tls_spiffe_validator_config_pb2,
)
from envoy.type.matcher.v3 import string_pb2
from google.protobuf import message

from ambit.envoy import names
from ambit.envoy.words import boolean, extension, from_ads, pack, pack_untyped
from ambit.model.proxy import TlsTerms

_PACKAGE = "envoy.extensions.transport_sockets.tls"
_TLS_1_3 = common_pb2.TlsParameters.TLSv1_3
_USUAL = TlsTerms()
_SAN_URI = common_pb2.SubjectAltNameMatcher.URI


def client_socket(server_identities: Iterable[str]) -> Any:
    """The transport socket of a tunnel: certificate chosen by the connection's filter state, server's SPIFFE
    identity one of `server_identities` and nothing else, whatever the authority signed."""
    mapper = {
        "name": "envoy.tls.upstream_certificate_mappers.filter_state_override",
        "typed_config": {
            "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
            "type_url": f"type.googleapis.com/{_PACKAGE}.cert_mappers.filter_state_override.v3.Config",
            "value": {"default_value": "none"},
        },
    }
    selector = pack_untyped(
        f"{_PACKAGE}.cert_selectors.on_demand_secret.v3.Config",
        {"config_source": {"ads": {}, "resource_api_version": "V3"}, "certificate_mapper": mapper},
    )
    context = _common(_pins(server_identities))
    context.custom_tls_certificate_selector.name = "envoy.tls.certificate_selectors.on_demand_secret"
    context.custom_tls_certificate_selector.typed_config.CopyFrom(selector)
    return _socket(tls_pb2.UpstreamTlsContext(common_tls_context=context))


def own_client_socket(server_identities: Iterable[str], secret: str) -> Any:
    """As `client_socket`, with the certificate `secret` whoever the connection is for."""
    context = _common(_pins(server_identities))
    context.tls_certificate_sds_secret_configs.add(name=secret, sds_config=from_ads())
    return _socket(tls_pb2.UpstreamTlsContext(common_tls_context=context))


def server_socket(secret: str) -> Any:
    """The transport socket of an HBONE listener: certificate `secret`, a client certificate of a trusted
    domain required."""
    context = _common(())
    context.tls_certificate_sds_secret_configs.add(name=secret, sds_config=from_ads())
    return _socket(
        tls_pb2.DownstreamTlsContext(
            common_tls_context=context,
            require_client_certificate=boolean(True),
            disable_stateless_session_resumption=True,
            disable_stateful_session_resumption=True,
        )
    )


def public_server_socket(
    secrets: Iterable[str], protocols: Iterable[str] = (), terms: TlsTerms = _USUAL
) -> Any:
    """The transport socket of a gateway's listener for whoever comes: the first of the certificates `secrets` that
    fits the client, TLS 1.2 or newer. `protocols` are those that may follow (ALPN)."""
    context = tls_pb2.CommonTlsContext(
        alpn_protocols=protocols,
        tls_params=common_pb2.TlsParameters(
            tls_minimum_protocol_version=_TLS_1_3 if terms.newest_only else common_pb2.TlsParameters.TLSv1_2,
            cipher_suites=terms.suites,
        ),
    )
    for secret in secrets:
        context.tls_certificate_sds_secret_configs.add(name=secret, sds_config=from_ads())
    return _socket(tls_pb2.DownstreamTlsContext(common_tls_context=context))


def public_quic_socket(secrets: Iterable[str]) -> Any:
    """As `public_server_socket`, for QUIC, whose TLS is 1.3. What a client sends before the handshake is done is not
    taken: whoever has seen it could send it again."""
    inner = tls_pb2.DownstreamTlsContext.FromString(
        public_server_socket(secrets, terms=TlsTerms(newest_only=True)).typed_config.value
    )
    context = quic_transport_pb2.QuicDownstreamTransport(
        downstream_tls_context=inner, enable_early_data=boolean(False)
    )
    return base_pb2.TransportSocket(name="envoy.transport_sockets.quic", typed_config=pack(context))


def asking_server_socket(
    secrets: Iterable[str],
    protocols: Iterable[str],
    roots: str,
    *,
    must: bool,
    terms: TlsTerms = _USUAL,
) -> Any:
    """As `public_server_socket`, asking clients for a certificate of the roots in the secret `roots`; with `must`
    nobody comes in without. No session is resumed: its certificate would not be looked at again."""
    context = tls_pb2.DownstreamTlsContext.FromString(
        public_server_socket(secrets, protocols, terms).typed_config.value
    )
    context.common_tls_context.validation_context_sds_secret_config.CopyFrom(
        secret_pb2.SdsSecretConfig(name=roots, sds_config=from_ads())
    )
    context.require_client_certificate.CopyFrom(boolean(must))
    context.disable_stateless_session_resumption = True
    context.disable_stateful_session_resumption = True
    return _socket(context)


def client_roots(name: str, pem: str, *, must: bool) -> Any:
    """The secret `name`: whose certificates are believed; without `must` any are taken."""
    chain = common_pb2.CertificateValidationContext
    return secret_pb2.Secret(
        name=name,
        validation_context=chain(
            trusted_ca=base_pb2.DataSource(inline_string=pem),
            trust_chain_verification=chain.VERIFY_TRUST_CHAIN if must else chain.ACCEPT_UNTRUSTED,
        ),
    )


def certificate(name: str, *, chain_pem: str, key_pem: str) -> Any:
    """The secret `name`: a certificate chain, leaf first, and its private key."""
    return secret_pb2.Secret(
        name=name,
        tls_certificate=common_pb2.TlsCertificate(
            certificate_chain=base_pb2.DataSource(inline_string=chain_pem),
            private_key=base_pb2.DataSource(inline_string=key_pem),
        ),
    )


def trust_bundle(roots: Mapping[str, str]) -> Any:
    """The secret with the roots (PEM) of each trust domain."""
    config = tls_spiffe_validator_config_pb2.SPIFFECertValidatorConfig()
    for domain, pem in sorted(roots.items()):
        config.trust_domains.add(name=domain, trust_bundle=base_pb2.DataSource(inline_string=pem))
    return secret_pb2.Secret(
        name=names.TRUST,
        validation_context=common_pb2.CertificateValidationContext(
            custom_validator_config=extension("envoy.tls.cert_validator.spiffe", config)
        ),
    )


def note(name: str, text: str) -> Any:
    """A secret that no listener names: `text` is for whoever passes it on to Envoy."""
    return secret_pb2.Secret(
        name=name, generic_secret=secret_pb2.GenericSecret(secret=base_pb2.DataSource(inline_string=text))
    )


def note_in(value: bytes) -> str:
    """What a note's message says. Raises ValueError."""
    try:
        text: str = secret_pb2.Secret.FromString(value).generic_secret.secret.inline_string
    except message.DecodeError as problem:
        raise ValueError(f"not a secret: {problem}") from None
    return text


def _pins(identities: Iterable[str]) -> list[Any]:
    return [
        common_pb2.SubjectAltNameMatcher(san_type=_SAN_URI, matcher=string_pb2.StringMatcher(exact=identity))
        for identity in identities
    ]


def _common(pins: Iterable[Any]) -> Any:
    return tls_pb2.CommonTlsContext(
        alpn_protocols=["h2"],
        tls_params=common_pb2.TlsParameters(
            tls_minimum_protocol_version=_TLS_1_3, tls_maximum_protocol_version=_TLS_1_3
        ),
        combined_validation_context=tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
            default_validation_context=common_pb2.CertificateValidationContext(
                match_typed_subject_alt_names=pins
            ),
            validation_context_sds_secret_config=secret_pb2.SdsSecretConfig(
                name=names.TRUST, sds_config=from_ads()
            ),
        ),
    )


def _socket(context: Any) -> Any:
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=pack(context))
