"""PeerAuthentication as L4 policy (istiod: `ambient/authorization.go`, `ambient/policies.go`).

- One policy counts per level, the oldest: mesh (root namespace, no selector), namespace (no selector),
  workload (selector, not in the root namespace). A level that is UNSET takes the mode of the level above;
  nothing is PERMISSIVE.
- STRICT becomes "deny who has no identity": the static policy when it holds for all ports, else a policy
  of its own with the exceptions, because a DENY elsewhere could not be undone by an exception.
- DISABLE is PERMISSIVE here: in an ambient mesh the caller's node decides to encrypt, not the policy.
- Port levels count with a selector only; ports are those of the pod.
- A value that cannot be read counts as STRICT.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from enum import StrEnum

import msgspec

from ambit.core.finding import Finding, Level, ObjectRef
from ambit.core.names import CONVERTED_STRICT_POLICY
from ambit.ingest.istio.values import is_port
from ambit.ingest.selection import selects
from ambit.ingest.settings import MeshSettings
from ambit.model.policy import Action, Authorization, Clause, Match, Presence, Rule, Scope
from ambit.objects import istio

KIND = "PeerAuthentication"
CONVERTED_PREFIX = "converted_peer_authentication_"
"""An underscore is not allowed in names of objects, so this meets no AuthorizationPolicy."""

_NO_IDENTITY = (Presence(),)


class Mode(StrEnum):
    UNSET = "UNSET"
    DISABLE = "DISABLE"
    PERMISSIVE = "PERMISSIVE"
    STRICT = "STRICT"


class PeerPolicy(msgspec.Struct, frozen=True):
    """What counts of one PeerAuthentication. `selector` is empty for a mesh or namespace level."""

    origin: ObjectRef
    age: tuple[str, str, str]
    selector: dict[str, str]
    mode: Mode
    ports: tuple[tuple[int, Mode], ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def namespace(self) -> str:
        return self.origin.namespace


def peer_policy(given: istio.PeerAuthentication, settings: MeshSettings) -> PeerPolicy:
    """Reads an object; what cannot be read is STRICT and said."""
    origin = given.metadata.reference(KIND)
    spec = given.spec
    selector = spec.selector.match_labels if spec.selector else {}
    findings: list[Finding] = []

    def say(code: str, level: Level, path: str, text: str) -> None:
        findings.append(Finding(code, level, origin, path, text))

    if given.problem:
        say("AMB0002", Level.ERROR, "spec", f"{given.problem}; it counts as STRICT")
    mode, ports, readable = _modes(spec, say)
    if given.problem or not readable:
        mode, ports = Mode.STRICT, ()
    if selector and given.metadata.namespace == settings.root_namespace:
        say("AMB0221", Level.WARNING, "spec.selector", "a selector in the root namespace selects nothing")
    if ports and not selector:
        say("AMB0222", Level.WARNING, "spec.portLevelMtls", "counts only together with a selector")
        ports = ()
    if mode is Mode.DISABLE or any(each is Mode.DISABLE for _, each in ports):
        say("AMB0224", Level.INFO, "spec", "DISABLE accepts plain text too, but turns no encryption off")
    return PeerPolicy(origin, given.metadata.age, selector, mode, ports, tuple(findings))


def static_strict(settings: MeshSettings) -> Authorization:
    """Deny who has no identity, on all ports; workloads refer to it by name."""
    return Authorization(
        name=CONVERTED_STRICT_POLICY,
        namespace=settings.root_namespace,
        scope=Scope.WORKLOAD_SELECTOR,
        action=Action.DENY,
        rules=(_only(Match(not_principals=_NO_IDENTITY)),),
    )


def static_strict_key(settings: MeshSettings) -> str:
    return f"{settings.root_namespace}/{CONVERTED_STRICT_POLICY}"


def oldest(policies: Iterable[PeerPolicy]) -> PeerPolicy | None:
    return min(policies, key=lambda policy: policy.age, default=None)


def own_authorization(policy: PeerPolicy, inherited: bool) -> Authorization | None:
    """The converted form of a workload-level policy; None where the static policy or none says the same."""
    strict_ports = tuple(port for port, mode in policy.ports if mode is Mode.STRICT)
    open_ports = tuple(port for port, mode in policy.ports if mode in (Mode.PERMISSIVE, Mode.DISABLE))
    if is_strict(policy, inherited):
        if not open_ports:
            return None
        match = Match(not_principals=_NO_IDENTITY, not_destination_ports=open_ports)
    else:
        if not strict_ports:
            return None
        match = Match(not_principals=_NO_IDENTITY, destination_ports=strict_ports)
    return Authorization(
        name=CONVERTED_PREFIX + policy.origin.name,
        namespace=policy.namespace,
        scope=Scope.WORKLOAD_SELECTOR,
        action=Action.DENY,
        rules=(_only(match),),
        origin=policy.origin,
    )


def is_strict(policy: PeerPolicy | None, inherited: bool) -> bool:
    """Mode of the ports that are not listed."""
    if policy is None or policy.mode is Mode.UNSET:
        return inherited
    return policy.mode is Mode.STRICT


def deciding(
    policies: Collection[PeerPolicy],
    namespace: str,
    labels: Mapping[str, str],
    port: int,
    settings: MeshSettings,
) -> tuple[Mode, PeerPolicy | None]:
    """STRICT or PERMISSIVE for a workload's port, and the policy that makes it so; None when none says anything."""
    levels: list[PeerPolicy | None] = []
    whole = [each for each in policies if not each.selector]
    if namespace != settings.root_namespace:
        own = [each for each in policies if each.selector and each.namespace == namespace]
        levels.append(oldest(each for each in own if selects(each.selector, labels)))
    scopes = namespace, settings.root_namespace
    levels += [oldest(each for each in whole if each.namespace == scope) for scope in scopes]
    for policy in filter(None, levels):
        mode = dict(policy.ports).get(port, Mode.UNSET)
        mode = policy.mode if mode is Mode.UNSET else mode
        if mode is not Mode.UNSET:
            return (Mode.STRICT if mode is Mode.STRICT else Mode.PERMISSIVE), policy
    return Mode.PERMISSIVE, None


def policy_name(policy: PeerPolicy | None, inherited: bool, settings: MeshSettings) -> str | None:
    """The one name that a workload carries for mutual TLS; `policy` is the oldest that selects it."""
    if policy is not None:
        own = own_authorization(policy, inherited)
        if own is not None:
            return own.key
    return static_strict_key(settings) if is_strict(policy, inherited) else None


def _only(match: Match) -> Rule:
    return Rule((Clause((match,)),))


def _modes(
    spec: istio.PeerAuthenticationSpec, say: Callable[[str, Level, str, str], None]
) -> tuple[Mode, tuple[tuple[int, Mode], ...], bool]:
    """The mode, the ports' modes in order, and whether all of them could be read."""
    mode = _mode(spec.mtls.mode, "spec.mtls.mode", say)
    ports: list[tuple[int, Mode]] = []
    readable = mode is not None
    for text, mtls in sorted(spec.port_level_mtls.items()):
        path = f"spec.portLevelMtls[{text}]"
        port_mode = _mode(mtls.mode, f"{path}.mode", say)
        if not is_port(text):
            say("AMB0210", Level.ERROR, path, f"{text!r} is no port between 1 and 65535; it counts as STRICT")
            readable = False
        elif port_mode is None:
            readable = False
        else:
            ports.append((int(text), port_mode))
    return mode or Mode.UNSET, tuple(sorted(ports)), readable


def _mode(text: str, path: str, say: Callable[[str, Level, str, str], None]) -> Mode | None:
    if text in Mode.__members__:
        return Mode[text]
    say("AMB0225", Level.ERROR, path, f"{text!r} is no mode; it counts as STRICT")
    return None
