"""Gateways at the edge of the mesh as proxies (Istio: classes `istio`; Gateway API v1.6 `Gateway`).

- A class is ours by its `controllerName`. The two that the control plane makes are known without their objects, too.
- What is made of a Gateway has its name and its class's (`shop-ambit`), as Istio's has, and so has its identity.
- A Gateway is accepted when one of its listeners is.
- Of `spec.addresses` the first value is asked of the load balancer, which decides who may have it.
"""

import hashlib
import re
from collections.abc import Iterable

import msgspec

from ambit.core.identity import Identity
from ambit.core.names import GATEWAY_CLASS_NAMES, GATEWAY_CONTROLLER, GATEWAY_NAME_LABEL
from ambit.ingest.gateway.client_certificates import ClientTrusts, insecure
from ambit.ingest.gateway.conditions import ACCEPTED, no, yes
from ambit.ingest.gateway.key_pairs import Secrets, shown_to_servers
from ambit.ingest.gateway.listeners import EdgeListener, Standing, compiled_listeners
from ambit.ingest.gateway.shares import Shares
from ambit.ingest.gateway.topology import trusted_proxies
from ambit.ingest.settings import MeshSettings
from ambit.model.proxy import GatewayCertificates, KeyPair, Proxy, ProxyKind
from ambit.model.status import Condition
from ambit.objects import gateway, kube

KIND = "Gateway"
SET = "ListenerSet"
_LONGEST = 63
"""Of a label (RFC 1035), which names of Services must be."""
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_DIGITS = 8


class EdgeSet(msgspec.Struct, frozen=True):
    """A ListenerSet as its Gateway has it; without listeners when the Gateway does not allow it."""

    key: str
    allowed: bool
    listeners: tuple[EdgeListener, ...] = ()

    @property
    def accepted(self) -> bool:
        """One of its listeners can be used."""
        return any(each.usable for each in self.listeners)


class Front(msgspec.Struct, frozen=True):
    """What a route names as its parent: a Gateway's own listeners, or those of one of its ListenerSets. `gateway` is
    the key of the Gateway."""

    gateway: str
    listeners: tuple[EdgeListener, ...]


class EdgeGateway(msgspec.Struct, frozen=True):
    """`proxy` is None for one that cannot be had; its conditions say why. `listeners` are its own."""

    key: str
    proxy: Proxy | None
    listeners: tuple[EdgeListener, ...]
    conditions: tuple[Condition, ...]
    sets: tuple[EdgeSet, ...] = ()
    shown: KeyPair | None = None
    """What servers see of it that ask for a certificate."""

    @property
    def all_listeners(self) -> tuple[EdgeListener, ...]:
        """Its own and those of its ListenerSets."""
        return (*self.listeners, *(each for one in self.sets for each in one.listeners))

    @property
    def certificates(self) -> GatewayCertificates | None:
        """What its listeners and itself show, each once."""
        if self.proxy is None:
            return None
        pairs = {pair.name: pair for each in self.all_listeners if each.usable for pair in each.certificates}
        if self.shown is not None:
            pairs[self.shown.name] = self.shown
        return GatewayCertificates(self.proxy.key, tuple(pairs.values())) if pairs else None


def is_edge_class(name: str, given: gateway.GatewayClass | None) -> bool:
    """Whether gateways of a class are ours at the edge; `given` is the class as the cluster has it."""
    if given is None:
        return name in GATEWAY_CLASS_NAMES
    return given.spec.controller_name == GATEWAY_CONTROLLER


def objects_name(gateway_name: str, class_name: str) -> str:
    """The name of what is made of a Gateway; one that cannot be a Service's is cut and told apart by a digest."""
    full = f"{gateway_name}-{class_name}"
    if len(full) <= _LONGEST and _LABEL.fullmatch(full):
        return full
    digest = hashlib.sha256(full.encode()).hexdigest()[:_DIGITS]
    plain = re.sub(r"[^a-z0-9-]", "-", full)[: _LONGEST - _DIGITS - 3]
    return f"g-{plain}-{digest}" if not plain[:1].isalpha() else f"{plain}-{digest}"


def label_value(name: str) -> str:
    """A Gateway's name as the value of a label, of which only so many characters count."""
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - _DIGITS - 1]}-{hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]}"


def gateway_of(pod: kube.Pod) -> list[str]:
    """Namespace and name, as a label has it, of the Gateway that a pod is for."""
    name = pod.metadata.labels.get(GATEWAY_NAME_LABEL, "")
    return [f"{pod.metadata.namespace}/{name}"] if name else []


def compiled_edge(
    given: gateway.Gateway,
    known: Secrets,
    settings: MeshSettings,
    sets: Iterable[tuple[gateway.ListenerSet, bool]] = (),
) -> EdgeGateway:
    """A Gateway of a class of the edge, with the ListenerSets that name it, and whether it allows them."""
    meta = given.metadata
    listeners = compiled_listeners(given.spec.listeners, KIND, meta.namespace, known)
    trusts = ClientTrusts(given, known)
    listeners = trusts.of(listeners)
    good = [each for each in listeners if each.accepted]
    trusted = trusted_proxies(given, settings.trusted_proxies)
    accepted = _refusal(given, trusted) or (_no_listener() if not good else yes(ACCEPTED))
    if accepted.holds and len(good) < len(listeners):
        accepted = yes(ACCEPTED, "ListenersNotValid", "some listeners are refused, see theirs")
    with_sets = _sets(listeners, known, trusts, sets)
    shown, resolved = shown_to_servers(given, known)
    proxy = None
    if accepted.holds and isinstance(trusted, int):
        name = objects_name(meta.name, given.spec.gateway_class_name)
        proxy = Proxy(
            key=meta.key,
            kind=ProxyKind.GATEWAY,
            identity=Identity(settings.trust_domain, meta.namespace, name),
            service=settings.hostname(name, meta.namespace),
            origin=meta.reference(KIND),
            listeners=tuple(
                each.model
                for each in (*good, *(each for one in with_sets for each in one.listeners))
                if each.usable
            ),
            trusted_proxies=trusted,
            client_certificate=shown.name if shown is not None else "",
        )
    conditions = (accepted, *(each for each in (resolved, insecure(given)) if each is not None))
    return EdgeGateway(meta.key, proxy, listeners, conditions, with_sets, shown)


def _sets(
    own: tuple[EdgeListener, ...],
    known: Secrets,
    trusts: ClientTrusts,
    sets: Iterable[tuple[gateway.ListenerSet, bool]],
) -> tuple[EdgeSet, ...]:
    """The Gateway itself, then the older ones have a port or host name (Gateway API `ListenerSet`)."""
    standing, shares = Standing(), Shares()
    for each in own:
        if not each.conflicted:
            standing.take(each.given)
    found = []
    for one, allowed in sorted(sets, key=lambda each: each[0].metadata.age):
        meta = one.metadata
        listeners: tuple[EdgeListener, ...] = ()
        if allowed:
            listeners = compiled_listeners(
                one.spec.listeners,
                SET,
                meta.namespace,
                known,
                standing=standing,
                shares=shares,
                owner=meta.key,
            )
            listeners = trusts.of(listeners)  # what a port asks, it asks on all of them
        found.append(EdgeSet(meta.key, allowed, listeners))
    return tuple(found)


def _refusal(given: gateway.Gateway, trusted: int | Condition) -> Condition | None:
    if isinstance(trusted, Condition):
        return trusted
    for address in given.spec.addresses:
        if address.type != "IPAddress":
            text = f"spec.addresses: type {address.type} is not supported, only IPAddress"
            return no(ACCEPTED, "UnsupportedAddress", text)
    return None


def _no_listener() -> Condition:
    return no(ACCEPTED, "ListenersNotValid", "no listener is accepted, see their conditions")
