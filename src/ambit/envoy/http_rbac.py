"""Authorization of CONNECT streams and requests, as one extension resource: a change is atomic and drains nothing."""

from collections.abc import Iterable, Sequence
from typing import Any

from envoy.config.core.v3 import config_source_pb2, extension_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as filter_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from ambit.envoy import matchers
from ambit.envoy.words import from_ads, pack

_TYPE = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
METADATA = "envoy.filters.http.rbac"
ENFORCED_RULE, SHADOW_RULE = "enforced_effective_policy_id", "shadow_effective_policy_id"
SHADOW_RESULT = "shadow_engine_result"
"""Keys of the access log's metadata under METADATA: the deciding rule, and "allowed" or "denied"."""


_AUDITED = "audited:"
"""No name of a rule has a colon."""


def with_audit(rule: str, audited: Sequence[str]) -> str:
    """The name of a rule of the dry run that tells of others, too."""
    return f"{rule}{_AUDITED}{','.join(audited)}" if audited else rule


def parse_audit(name: str) -> tuple[str, tuple[str, ...]]:
    """The two parts of `with_audit`."""
    rule, _, audited = name.partition(_AUDITED)
    return rule, tuple(audited.split(",")) if audited else ()


def filter_of(name: str) -> Any:
    """The place of the extension `name` in a chain of filters."""
    return http_connection_manager_pb2.HttpFilter(
        name=name,
        config_discovery=config_source_pb2.ExtensionConfigSource(config_source=from_ads(), type_urls=[_TYPE]),
    )


def extension(
    name: str,
    enforced: Iterable[tuple[matchers.Predicate, bool, str]],
    otherwise: tuple[bool, str],
    dry_run: Iterable[tuple[matchers.Predicate, bool, str]] = (),
) -> Any:
    """The extension config `name`. Rows are (predicate, allow?, rule's name), tried in order; `dry_run` rows
    are decided and logged beside, without effect."""
    rbac = deciding(enforced, otherwise, dry_run)
    return extension_pb2.TypedExtensionConfig(name=name, typed_config=pack(rbac))


def silent() -> Any:
    """A filter that allows everything, but what virtual hosts say to it (`of_host`)."""
    return http_connection_manager_pb2.HttpFilter(name=METADATA, typed_config=pack(filter_pb2.RBAC()))


def of_host(
    host: Any,
    enforced: Iterable[tuple[matchers.Predicate, bool, str]],
    otherwise: tuple[bool, str],
    dry_run: Iterable[tuple[matchers.Predicate, bool, str]] = (),
) -> None:
    """What a virtual host of a chain with `silent` allows; rows as for `extension`."""
    said = filter_pb2.RBACPerRoute(rbac=deciding(enforced, otherwise, dry_run))
    host.typed_per_filter_config[METADATA].CopyFrom(pack(said))


def deciding(
    enforced: Iterable[tuple[matchers.Predicate, bool, str]],
    otherwise: tuple[bool, str],
    dry_run: Iterable[tuple[matchers.Predicate, bool, str]] = (),
) -> Any:
    """What a filter does, with rows as for `extension`."""
    shadow = list(dry_run)
    rbac = filter_pb2.RBAC(matcher=_matcher(enforced, otherwise))
    if shadow:
        rbac.shadow_matcher.CopyFrom(_matcher(shadow, otherwise))
    return rbac


def _matcher(rows: Iterable[tuple[matchers.Predicate, bool, str]], otherwise: tuple[bool, str]) -> Any:
    return matchers.first_match(
        ((predicate, _action(allow, name)) for predicate, allow, name in rows), _action(*otherwise)
    )


def _action(allow: bool, name: str) -> Any:
    taken = rbac_pb2.RBAC.ALLOW if allow else rbac_pb2.RBAC.DENY
    return matchers.action("action", rbac_pb2.Action(name=name, action=taken))
