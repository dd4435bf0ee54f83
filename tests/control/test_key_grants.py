"""ReferenceGrants for key servers of other namespaces."""

from ambit.control.token_keys.grants import KeyGrants
from ambit.objects.gateway import GrantFrom, GrantTo, ReferenceGrant, ReferenceGrantSpec
from ambit.objects.meta import ObjectMeta


def grant(namespace: str, *to: GrantTo, kind: str = "RequestAuthentication") -> ReferenceGrant:
    """For objects of namespace `shop`."""
    source = GrantFrom(kind, "shop", "security.istio.io")
    return ReferenceGrant(ObjectMeta("g", namespace), ReferenceGrantSpec((source,), to))


def grants(*given: ReferenceGrant) -> KeyGrants:
    return KeyGrants(
        {(each.metadata.namespace, str(i)): each for i, each in enumerate(given)}, lambda _: None
    )


def test_a_grant_is_for_one_kind_namespace_and_service() -> None:
    one = grants(grant("auth", GrantTo("Service", "", "idp")))
    assert one.is_granted("shop", "auth", "idp")
    assert not one.is_granted("other", "auth", "idp")
    assert not one.is_granted("shop", "auth", "web")
    assert not one.is_granted("shop", "bank", "idp")
    assert grants(grant("auth", GrantTo("Service"))).is_granted("shop", "auth", "web")
    assert not grants(grant("auth", GrantTo("Secret"))).is_granted("shop", "auth", "web")
    assert not grants(grant("auth", GrantTo("Service"), kind="HTTPRoute")).is_granted("shop", "auth", "web")


def test_a_change_names_the_namespaces_that_it_is_for() -> None:
    seen: list[object] = []
    observer = KeyGrants({}, seen.append)
    observer.observed("added", None, grant("auth", GrantTo("Service")))
    observer.observed("deleted", grant("auth"), None)
    observer.observed("added", None, grant("auth", kind="HTTPRoute"))
    assert seen == [{"shop"}, {"shop"}]
