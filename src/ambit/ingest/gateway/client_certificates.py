"""Certificates that clients of a gateway must show (Gateway API v1.6 `FrontendTLSConfig`): for HTTPS listeners, by
port, else as the default says.

References that lead nowhere are said by the listener; one that none of whose references leads to roots takes no
connection. `AllowInsecureFallback` asks for certificates and lets everybody in; the Gateway says so.
"""

from collections.abc import Iterable

import msgspec

from ambit.ingest.gateway.certificates import problem_of_roots
from ambit.ingest.gateway.conditions import ACCEPTED, RESOLVED, no
from ambit.ingest.gateway.key_pairs import Secrets
from ambit.ingest.gateway.listeners import EdgeListener
from ambit.ingest.gateway.references import is_granted_to
from ambit.ingest.gateway.tls_options import HTTP3
from ambit.model.proxy import ClientTrust
from ambit.model.status import Condition
from ambit.objects import gateway

INSECURE = "InsecureFrontendValidationMode"
_FALLBACK = "AllowInsecureFallback"


def insecure(given: gateway.Gateway) -> Condition | None:
    """What the Gateway says when clients without a certificate are let in nevertheless."""
    frontend = given.spec.tls.frontend if given.spec.tls is not None else None
    if frontend is None:
        return None
    several = [frontend.default, *(each.tls for each in frontend.per_port)]
    if not any(each.validation is not None and each.validation.mode == _FALLBACK for each in several):
        return None
    text = f"{_FALLBACK}: clients come in without a certificate that can be verified"
    return Condition(INSECURE, "True", "ConfigurationChanged", text)


def with_client_trust(
    listeners: Iterable[EdgeListener], given: gateway.Gateway, known: Secrets
) -> tuple[EdgeListener, ...]:
    """The listeners of a Gateway with what they ask of clients."""
    return tuple(_with_trust(each, given, known) for each in listeners)


def _with_trust(listener: EdgeListener, given: gateway.Gateway, known: Secrets) -> EdgeListener:
    validation = _validation(listener, given)
    if validation is None or not listener.accepted:
        return listener
    roots: list[str] = []
    problems: list[Condition] = []
    for each in validation.ca_certificate_refs:
        found = _roots(each, given.metadata.namespace, known)
        if isinstance(found, Condition):
            problems.append(found)
        else:
            roots.append(found)
    conditions = {each.type: each for each in listener.conditions}
    if listener.terms.http3:
        text = f"tls.options: {HTTP3}: QUIC asks nobody for a certificate, and spec.tls.frontend does on this port"
        conditions[ACCEPTED] = no(ACCEPTED, "UnsupportedValue", text)
        return msgspec.structs.replace(listener, conditions=tuple(conditions.values()))
    if problems:
        text = "; ".join(each.message for each in problems)
        conditions[RESOLVED] = no(RESOLVED, problems[0].reason, text)
    if not roots:
        conditions[ACCEPTED] = no(ACCEPTED, "NoValidCACertificate", "no root leads to clients' certificates")
        return msgspec.structs.replace(listener, conditions=tuple(conditions.values()))
    trust = ClientTrust("".join(roots), must_verify=validation.mode != _FALLBACK)
    return msgspec.structs.replace(listener, conditions=tuple(conditions.values()), clients=trust)


def _validation(listener: EdgeListener, given: gateway.Gateway) -> gateway.FrontendValidation | None:
    frontend = given.spec.tls.frontend if given.spec.tls is not None else None
    if frontend is None or listener.given.protocol != "HTTPS":
        return None
    for each in frontend.per_port:
        if each.port == listener.given.port:
            return each.tls.validation
    return frontend.default.validation


def _roots(given: gateway.ObjectReference, namespace: str, known: Secrets) -> str | Condition:
    """PEM, or why there is none."""
    place = given.namespace or namespace
    key = f"{place}/{given.name}"
    if (given.group, given.kind) != ("", "ConfigMap"):
        kind = f"{given.kind}.{given.group}" if given.group else given.kind
        return no(RESOLVED, "InvalidCACertificateKind", f"{kind} {key}: roots are in ConfigMaps")
    if place != namespace and not is_granted_to(
        known.grants(place), "Gateway", namespace, given.group, given.kind, given.name
    ):
        text = f"ConfigMap {key} needs a ReferenceGrant in its namespace for Gateway of namespace {namespace}"
        return no(RESOLVED, "RefNotPermitted", text)
    found = known.roots(key)
    if found is None:
        return no(RESOLVED, "InvalidCACertificateRef", f"ConfigMap {key} does not exist")
    if problem := problem_of_roots(found):
        return no(RESOLVED, "InvalidCACertificateRef", f"ConfigMap {key}, ca.crt: {problem}")
    return f"{found.strip()}\n"
