"""Authorization of CONNECT streams, as one extension resource: a change is atomic and drains nothing."""

from collections.abc import Iterable
from typing import Any

from envoy.config.core.v3 import extension_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as filter_pb2

from ambit.envoy import matchers
from ambit.envoy.words import pack

ENFORCED_PREFIX = "enforced_"
SHADOW_PREFIX = "shadow_"
"""Prefixes of the keys `effective_policy_id` and `engine_result` in the access log's RBAC metadata."""


def extension(
    name: str,
    enforced: Iterable[tuple[matchers.Predicate, bool, str]],
    otherwise: tuple[bool, str],
    dry_run: Iterable[tuple[matchers.Predicate, bool, str]] = (),
) -> Any:
    """The extension config `name`. Rows are (predicate, allow?, rule's name), tried in order; `dry_run` rows
    are decided and logged beside, without effect."""
    shadow = list(dry_run)
    rbac = filter_pb2.RBAC(matcher=_matcher(enforced, otherwise), rules_stat_prefix=ENFORCED_PREFIX)
    if shadow:
        rbac.shadow_matcher.CopyFrom(_matcher(shadow, otherwise))
        rbac.shadow_rules_stat_prefix = SHADOW_PREFIX
    return extension_pb2.TypedExtensionConfig(name=name, typed_config=pack(rbac))


def _matcher(rows: Iterable[tuple[matchers.Predicate, bool, str]], otherwise: tuple[bool, str]) -> Any:
    return matchers.first_match(
        ((predicate, _action(allow, name)) for predicate, allow, name in rows), _action(*otherwise)
    )


def _action(allow: bool, name: str) -> Any:
    taken = rbac_pb2.RBAC.ALLOW if allow else rbac_pb2.RBAC.DENY
    return matchers.action("action", rbac_pb2.Action(name=name, action=taken))
