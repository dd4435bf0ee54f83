"""Typed projections of the Gateway API's policies about backends (v1.6): BackendTLSPolicy."""

import msgspec

from ambit.objects.meta import ObjectMeta


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
