"""Policies for requests that nobody enforces: what they name is closed.

A policy with `targetRefs` protects its target where the target's waypoint decides. What is named by one and has no
waypoint, or by one that waypoints cannot enforce (CUSTOM), is given the name of a waypoint that nobody has, so that
nodes refuse what is to go there: a policy that is not enforced must not let anybody in. AUDIT and dry runs forbid
nothing and close nothing.

Gateways at the edge enforce no policies yet, and no node does for them. They are closed by those for them and, as Istio
has it (`WorkloadPolicyMatcher`), by those that choose their pods by labels, their namespace or the mesh.
"""

from collections.abc import Callable, Iterable, Mapping

import msgspec

from ambit.core.names import GATEWAY_CLASS_NAMES, HBONE_PORT
from ambit.graph.collection import Collection
from ambit.graph.engine import Context
from ambit.ingest.binds import Bind, Binds
from ambit.ingest.gateway.edge import objects_name
from ambit.ingest.gateway.pod_labels import labels_of_pods
from ambit.ingest.istio.authorization import is_for_requests
from ambit.ingest.selection import label_entries, selector_entry, selects
from ambit.ingest.settings import MeshSettings
from ambit.ingest.targeted import is_tried
from ambit.model.jwt import Target
from ambit.model.proxy import ProxyKind
from ambit.model.request_policy import RequestAction, RequestPolicy
from ambit.model.service import Service
from ambit.model.workload import GatewayAddress
from ambit.objects.gateway import Gateway
from ambit.objects.istio import AuthorizationPolicy

NOT_ENFORCED, NO_WAYPOINT = "not-enforced.invalid", "no-waypoint.invalid"
"""Ends of hostnames that nobody has (RFC 6761)."""


LetsPast = Callable[[Context, Service], bool]
"""Whether labels let connections pass by that its waypoint cannot take."""


class Unenforced:
    """Which objects such policies are about."""

    def __init__(
        self,
        policies: Collection[RequestPolicy],
        given: Collection[AuthorizationPolicy],
        lets_past: LetsPast,
        settings: MeshSettings,
    ) -> None:
        self._by_labels = given.index(_filed)
        self._settings = settings
        self._lets_past = lets_past
        self._forbidding = policies.index(lambda given: self._targets(given) if forbids(given) else [])
        self._impossible = policies.index(
            lambda given: self._targets(given) if forbids(given) and _is_impossible(given) else []
        )

    def binds(self, open_binds: Binds) -> Binds:
        """The same with waypoints closed that a policy is for as a whole and which they cannot enforce."""
        return Binds(
            *(self._closing(each) for each in (open_binds.service, open_binds.entry, open_binds.workload))
        )

    def service(self, context: Context, given: Service) -> Service:
        """The service with its waypoint closed when a policy is for the service and nobody enforces it."""
        kind = "Service" if given.is_kubernetes else "ServiceEntry"
        name = f"{kind} {given.namespace}/{given.name}"
        if given.waypoint is not None:
            if not context.lookup(self._impossible, name):
                return given
            return msgspec.structs.replace(given, waypoint=_closed(given.waypoint))
        if (
            given.has_waypoint
            or not context.lookup(self._forbidding, name)
            or self._lets_past(context, given)
        ):
            return given
        nobody = GatewayAddress(
            HBONE_PORT, namespace=given.namespace, hostname=f"{given.name}.{given.namespace}.{NO_WAYPOINT}"
        )
        return msgspec.structs.replace(given, waypoint=nobody)

    def gateway(self, context: Context, given: Gateway) -> tuple[str, ...]:
        """The policies for which a gateway at the edge must let nobody in, `<namespace>/<name>` in order."""
        meta = given.metadata
        named = (
            f"waypoint {self._settings.hostname(meta.name, meta.namespace)}",
            f"class {given.spec.gateway_class_name}",
        )
        keys = {policy.key for each in named for policy in context.lookup(self._forbidding, each)}
        account = objects_name(meta.name, given.spec.gateway_class_name)
        labels = labels_of_pods(given, ProxyKind.GATEWAY, account)
        for namespace in {meta.namespace, self._settings.root_namespace}:
            for entry in (namespace, *label_entries(namespace, labels)):
                found = context.lookup(self._by_labels, entry)
                keys |= {each.metadata.key for each in found if selects(_selector(each), labels)}
        return tuple(sorted(keys))

    def _closing(self, bind: Bind) -> Bind:
        def closing(context: Context, namespace: str, labels: Mapping[str, str]) -> GatewayAddress | None:
            found = bind(context, namespace, labels)
            if found is None:
                return None
            named = (f"waypoint {found.hostname}", "waypoints")
            return _closed(found) if any(context.lookup(self._impossible, each) for each in named) else found

        return closing

    def _targets(self, policy: RequestPolicy) -> list[str]:
        return list(dict.fromkeys(self._where(policy.targets)))

    def _where(self, targets: Iterable[Target]) -> Iterable[str]:
        """Where targets are looked for. Of a GatewayClass all waypoints: more rather than fewer."""
        for target in targets:
            match target.kind:
                case "Gateway":
                    yield f"waypoint {self._settings.hostname(target.name, target.namespace)}"
                case "GatewayClass":
                    yield "waypoints"
                    names = GATEWAY_CLASS_NAMES if target.name in GATEWAY_CLASS_NAMES else (target.name,)
                    yield from (f"class {name}" for name in names)
                case kind:
                    yield f"{kind} {target.namespace}/{target.name}"


def forbids(policy: RequestPolicy) -> bool:
    """Whether it may refuse something: AUDIT and dry runs do not."""
    return policy.action is not RequestAction.AUDIT and not policy.dry_run


def _filed(given: AuthorizationPolicy) -> list[str]:
    """Where one that chooses by labels is looked for; without labels it is its namespace, or the mesh."""
    if is_for_requests(given) or given.spec.action == "AUDIT" or is_tried(given):
        return []
    namespace, selector = given.metadata.namespace, _selector(given)
    return [selector_entry(namespace, selector) if selector else namespace]


def _selector(given: AuthorizationPolicy) -> dict[str, str]:
    return given.spec.selector.match_labels if given.spec.selector else {}


def _is_impossible(policy: RequestPolicy) -> bool:
    return policy.action is RequestAction.CUSTOM


def _closed(waypoint: GatewayAddress) -> GatewayAddress:
    name = waypoint.hostname.partition(".")[0]
    return msgspec.structs.replace(waypoint, hostname=f"{name}.{waypoint.namespace}.{NOT_ENFORCED}")
