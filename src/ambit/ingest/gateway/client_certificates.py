"""Certificates that clients of a gateway must show (Gateway API v1.6 `FrontendTLSConfig`): for HTTPS listeners, by
port, else as the default says. A listener's own option (Istio's `tls-terminate-mode: MUTUAL`) asks them for one of a
root in its Secrets instead.

References that lead nowhere are said by the listener; one that none of whose references leads to roots takes no
connection. `AllowInsecureFallback` asks for certificates and lets everybody in; the Gateway says so.
"""

from collections.abc import Iterable, Sequence

import msgspec

from ambit.ingest.gateway.certificates import problem_of_roots
from ambit.ingest.gateway.conditions import ACCEPTED, RESOLVED, no
from ambit.ingest.gateway.key_pairs import BadRoots, Secrets
from ambit.ingest.gateway.listeners import EdgeListener
from ambit.ingest.gateway.references import is_granted_to
from ambit.ingest.gateway.tls_options import HTTP3, TERMINATE_MODE
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


class ClientTrusts:
    """What a Gateway asks of clients. Roots that ports name are read once, however many listeners they have."""

    def __init__(self, given: gateway.Gateway, known: Secrets) -> None:
        self._given = given
        self._known = known
        self._read: dict[gateway.FrontendValidation, Sequence[str | Condition]] = {}

    def of(self, listeners: Iterable[EdgeListener]) -> tuple[EdgeListener, ...]:
        """Listeners of the Gateway with what they ask of clients."""
        return tuple(map(self._of, listeners))

    def _of(self, listener: EdgeListener) -> EdgeListener:
        validation = _validation(listener, self._given)
        if not listener.accepted or (validation is None and not listener.asks_clients):
            return listener
        if problem := _unsupported(listener, validation):
            return _with(listener, no(ACCEPTED, "UnsupportedValue", f"tls.options: {problem}"))
        if validation is not None:
            found = self._roots(validation)
        elif not listener.certificates:
            return listener  # there is no Secret to look into, and it says so
        else:
            found = [_roots_beside(each.name, self._known) for each in listener.certificates]
        roots = [each for each in found if not isinstance(each, Condition)]
        problems = [each for each in found if isinstance(each, Condition)]
        if problems:
            text = "; ".join(each.message for each in problems)
            listener = _with(listener, no(RESOLVED, problems[0].reason, text))
        if not roots:
            text = "no root leads to clients' certificates"
            return _with(listener, no(ACCEPTED, "NoValidCACertificate", text))
        trust = ClientTrust("".join(roots), must_verify=validation is None or validation.mode != _FALLBACK)
        return msgspec.structs.replace(listener, clients=trust)

    def _roots(self, validation: gateway.FrontendValidation) -> Sequence[str | Condition]:
        found = self._read.get(validation)
        if found is None:
            namespace = self._given.metadata.namespace
            found = [_roots(each, namespace, self._known) for each in validation.ca_certificate_refs]
            self._read[validation] = found
        return found


def _with(listener: EdgeListener, condition: Condition) -> EdgeListener:
    conditions = {each.type: each for each in listener.conditions} | {condition.type: condition}
    return msgspec.structs.replace(listener, conditions=tuple(conditions.values()))


def _unsupported(listener: EdgeListener, validation: gateway.FrontendValidation | None) -> str:
    if listener.terms.http3:
        return f"{HTTP3}: QUIC asks nobody for a certificate, and clients of this port are asked for one"
    if listener.asks_clients and validation is not None:
        return f"{TERMINATE_MODE}: spec.tls.frontend says already what clients of this port are asked for"
    return ""


def _validation(listener: EdgeListener, given: gateway.Gateway) -> gateway.FrontendValidation | None:
    frontend = given.spec.tls.frontend if given.spec.tls is not None else None
    if frontend is None or listener.given.protocol != "HTTPS":
        return None
    for each in frontend.per_port:
        if each.port == listener.given.port:
            return each.tls.validation
    return frontend.default.validation


def _roots_beside(key: str, known: Secrets) -> str | Condition:
    """PEM under `ca.crt` of a Secret that the listener shows a certificate of, or why there is none. Whoever it
    revokes would be let in: no list of those is read."""
    secret = known.secret(key)
    beside = secret.roots if secret is not None else None
    if beside is None:
        return no(RESOLVED, "InvalidCACertificateRef", f"Secret {key}: {TERMINATE_MODE} needs ca.crt in it")
    if isinstance(beside, BadRoots):
        return no(RESOLVED, "InvalidCACertificateRef", f"Secret {key}{beside.text}")
    return beside


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
