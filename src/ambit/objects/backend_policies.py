"""Typed projections of the Gateway API's policies about backends (v1.6): BackendTLSPolicy, XBackendTrafficPolicy."""

import msgspec

from ambit.objects.meta import ObjectMeta
from ambit.objects.routes import Persistence


class PolicyTarget(msgspec.Struct, frozen=True, rename="camel"):
    """`section_name` is the name of a port; empty for all."""

    kind: str
    name: str
    group: str = ""
    section_name: str = ""


class CertificateRef(msgspec.Struct, frozen=True):
    kind: str
    name: str
    group: str = ""


class SubjectAltName(msgspec.Struct, frozen=True):
    """`type` is `Hostname` or `URI`, and says which of the others counts."""

    type: str
    hostname: str = ""
    uri: str = ""


class Validation(msgspec.Struct, frozen=True):
    hostname: str = ""
    ca_certificate_refs: tuple[CertificateRef, ...] = msgspec.field(default=(), name="caCertificateRefs")
    well_known: str = msgspec.field(default="", name="wellKnownCACertificates")
    subject_alt_names: tuple[SubjectAltName, ...] = msgspec.field(default=(), name="subjectAltNames")


class BackendTLSPolicySpec(msgspec.Struct, frozen=True, rename="camel"):
    target_refs: tuple[PolicyTarget, ...] = ()
    validation: Validation = Validation()
    options: dict[str, str] = {}


class BackendTLSPolicy(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: BackendTLSPolicySpec = BackendTLSPolicySpec()


class RetryBudget(msgspec.Struct, frozen=True):
    percent: int = 20


class RetryRate(msgspec.Struct, frozen=True):
    count: int = 10
    interval: str = "1s"


class RetryConstraint(msgspec.Struct, frozen=True, rename="camel"):
    budget: RetryBudget = RetryBudget()
    min_retry_rate: RetryRate = RetryRate()


class TrafficTarget(msgspec.Struct, frozen=True):
    kind: str
    name: str
    group: str = ""


class XBackendTrafficPolicySpec(msgspec.Struct, frozen=True, rename="camel"):
    target_refs: tuple[TrafficTarget, ...] = ()
    retry_constraint: RetryConstraint | None = None
    session_persistence: Persistence | None = None


class XBackendTrafficPolicy(msgspec.Struct, frozen=True):
    """Experimental: of the group `gateway.networking.x-k8s.io`."""

    metadata: ObjectMeta
    spec: XBackendTrafficPolicySpec = XBackendTrafficPolicySpec()
