"""What a policy with `targetRefs` is about, and whether it forbids anything there."""

from ambit.objects.istio import AuthorizationPolicy, TargetRef

_DRY_RUN = "istio.io/dry-run"


def references(policy: AuthorizationPolicy) -> tuple[TargetRef, ...]:
    """Of both fields."""
    spec = policy.spec
    return (*((spec.target_ref,) if spec.target_ref else ()), *spec.target_refs)


def forbids(policy: AuthorizationPolicy) -> bool:
    """Whether it is for L7 proxies and may refuse something: AUDIT and dry runs do not."""
    return bool(references(policy)) and policy.spec.action != "AUDIT" and not is_tried(policy)


def is_tried(policy: AuthorizationPolicy) -> bool:
    """Whether it is a dry run."""
    return policy.metadata.annotations.get(_DRY_RUN, "").lower() in ("true", "t", "1")
