"""Which endpoints of a service are preferred: traffic distribution (istiod: `model/context.go`, `ambient/services.go`).

- The field of a Service goes before its annotation, that before the namespace's annotation; a value that nobody
  knows is passed over. Letters of either case, as in Istio.
- A preference is never a restriction: the next wider circle is used while the nearer one has no healthy endpoint.
- `internalTrafficPolicy: Local` is a restriction, and goes before all preferences: it is about correctness, they
  are about cost.
"""

from collections.abc import Iterable

from ambit.model.service import BalancingMode, HealthPolicy, LoadBalancing, Scope

DISTRIBUTION_ANNOTATION = "networking.istio.io/traffic-distribution"

_SAME_ZONE = (Scope.NETWORK, Scope.REGION, Scope.ZONE)
_PREFERENCES: dict[str, tuple[Scope, ...]] = {
    "preferclose": _SAME_ZONE,
    "prefersamezone": _SAME_ZONE,
    "prefersamenode": (*_SAME_ZONE, Scope.SUBZONE, Scope.NODE),
    "prefersameregion": (Scope.NETWORK, Scope.REGION),
    "prefersamenetwork": (Scope.NETWORK,),
}


def preference(
    wanted: Iterable[str], health: HealthPolicy = HealthPolicy.ONLY_HEALTHY, *, only_this_node: bool = False
) -> LoadBalancing | None:
    """The balancing of a service. `wanted` are the distributions that its objects ask for, the strongest first;
    empty texts ask for nothing. None when nothing is asked for."""
    if only_this_node:
        return LoadBalancing((Scope.NODE,), BalancingMode.STRICT, health)
    known = (_PREFERENCES.get(each.lower()) for each in wanted)
    scopes = next((each for each in known if each is not None), None)
    if scopes is not None:
        return LoadBalancing(scopes, BalancingMode.FAILOVER, health)
    return LoadBalancing(health_policy=health) if health is HealthPolicy.ALLOW_ALL else None
