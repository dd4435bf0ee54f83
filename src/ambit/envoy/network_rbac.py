"""What policies say of a connection in which nobody reads requests, for its record. Nothing is denied here: the matcher
of its listener has decided before a byte flowed (`ambit.envoy.l7.admission`). Extensions of their own (ECDS), so that a
change drains nothing: one tells what decided, one what the dry run would do. Both are dry runs to Envoy, which names no
rule that is enforced. Who never sends a byte is not looked at.
"""

from collections.abc import Iterable
from typing import Any

from envoy.config.core.v3 import config_source_pb2, extension_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as filter_pb2

from ambit.envoy import matchers
from ambit.envoy.words import from_ads, pack

_TYPE = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC"
METADATA = "envoy.filters.network.rbac"
"""Of the access log, with the keys SHADOW_RULE and SHADOW_RESULT of `ambit.envoy.http_rbac` behind a prefix."""
DECIDED, TRIED = "decided_", "tried_"
"""Prefixes of the two."""
_STATISTICS = "judged."
NO_RULE = "default"
Row = tuple[matchers.Predicate, bool, str]


def filter_of(name: str) -> Any:
    """The place of the extension `name` in a filter chain."""
    source = config_source_pb2.ExtensionConfigSource(config_source=from_ads(), type_urls=[_TYPE])
    return listener_components_pb2.Filter(name=name, config_discovery=source)


def extension(name: str, prefix: str, rows: Iterable[Row] = ()) -> Any:
    """The extension config `name`: which of the rows (`ambit.envoy.http_rbac`) holds first, and what it does."""
    rbac = filter_pb2.RBAC(stat_prefix=_STATISTICS, shadow_rules_stat_prefix=prefix)
    listed = [(predicate, _action(allow, rule)) for predicate, allow, rule in rows]
    if listed:
        rbac.shadow_matcher.CopyFrom(matchers.first_match(listed, _action(True, NO_RULE)))
    return extension_pb2.TypedExtensionConfig(name=name, typed_config=pack(rbac))


def _action(allow: bool, name: str) -> Any:
    taken = rbac_pb2.RBAC.ALLOW if allow else rbac_pb2.RBAC.DENY
    return matchers.action("action", rbac_pb2.Action(name=name, action=taken))
