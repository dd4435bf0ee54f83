"""Routes of another namespace than their Service's: consumer routes (GEP-1426, "Namespace boundaries").

Whoever may write routes in a namespace says what becomes of what that namespace sends, and must gain nothing at the
Service by it: its waypoint calls with its own identity, after the Service's own rules have decided.

1. Only requests of the route's namespace meet it, and they meet none of the Service's own routes
   (`ambit.ingest.gateway.table`).
2. It stands in nobody else's way: of kinds that exclude each other on a port it goes before routes of its own
   namespace alone.
3. What goes on to the Service is not changed on the way there: the rules for it have seen it as it was.
4. Of the Service it sends on to the port only that it is for: the rules for others have not been asked.
5. It is for ports that are said to speak HTTP, since it would make requests of bytes for everybody; and it is of
   HTTP or gRPC, because callers of connections are not told apart by namespace.
6. Hosts of ServiceEntries are those of its own namespace, Services of others need a ReferenceGrant
   (`ambit.ingest.gateway.references`).
"""

from collections.abc import Iterable

from ambit.model.http import Action
from ambit.model.service import HTTP, Service


def consumer(namespace: str, service: Service | None) -> str:
    """The namespace whose requests alone a route of `namespace` concerns; empty when it is the Service's own, or has
    no Service as parent."""
    return "" if service is None or namespace == service.namespace else namespace


def concerns(of_route: str, consumer: str) -> bool:
    """Whether a route of one consumer (or of none) also has requests that one of the other has (2)."""
    return of_route in ("", consumer)


def changes(action: Action, consumer: str, service: Service) -> str:
    """What an action changes of requests for the Service itself, as a sentence; empty when nothing (3). Who is
    asked may change what he likes."""
    backends = [each for each in action.backends if each.service == service.key]
    mirrors = [each for each in action.mirrors if each.service == service.key]
    changed = action.rewrite is not None or bool(action.request_headers) or action.external_auth is not None
    if (changed and (backends or mirrors)) or any(each.rewrite or each.request_headers for each in backends):
        return (
            f"filters: a route of namespace {consumer} must not change requests for the Service of namespace "
            f"{service.namespace} (URLRewrite, RequestHeaderModifier, ExternalAuth)"
        )
    return ""


def called_alone(
    actions: Iterable[Action], ports: Iterable[int], service: Service
) -> tuple[tuple[int, ...], str]:
    """Those of `ports` to which a route with these actions sends on what it is for, and why it is none of them (4)."""
    called = set()
    for action in actions:
        called |= {each.port for each in action.backends if each.service == service.key}
        called |= {each.port for each in action.mirrors if each.service == service.key}
    found = tuple(port for port in ports if called <= {port})
    if found:
        return found, ""
    text = f"a route of another namespace sends on to the port of {service.name} it is for, and no other"
    return (), f"{text}: name that port in parentRefs and backendRefs"


def speaking(ports: Iterable[int], service: Service) -> tuple[tuple[int, ...], str]:
    """Those of `ports` that are said to speak HTTP, and why it is none of them (5)."""
    found = tuple(port for port in ports if service.app_protocols.get(port) in HTTP)
    if found:
        return found, ""
    named = f"{service.namespace}/{service.name}"
    return (), f"no port of {named} is said to speak HTTP (appProtocol, or its name)"


def no_bytes(kind: str, service: Service) -> str:
    """Why a route of bytes cannot be a consumer's (5)."""
    return f"a {kind} must be in the namespace of its Service, {service.namespace}"
