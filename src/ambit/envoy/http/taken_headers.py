"""Headers of requests that no client may send through a proxy of the mesh: taken away before anybody reads them.

Some servers are shown `_` for `-` in names of headers (RFC 3875 4.1.18, and so CGI, WSGI, PHP). What a proxy vouches
for is true only where no name is left that reads the same to them, so all spellings of it go: by name, since that is
a few comparisons of short texts for each header of a request, where an expression is a program that is run on each, and
is kept for each port of each service. Names of anybody else's headers may have `_`.
"""

import itertools
from collections.abc import Iterable
from typing import Any

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2

from ambit.envoy import refusals
from ambit.envoy.http import authorizers
from ambit.envoy.words import pack

_ORDERS_TO_PROXY = (
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-stream-duration-ms",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-force-trace",
    "x-envoy-decorator-operation",
    "x-envoy-original-path",
    "x-envoy-original-host",
)
"""Headers by which whoever sends a request could tell the proxy what to do: routes say that."""
_VOUCHED = ("x-forwarded-client-cert",)
_VOUCHED_AT_THE_EDGE = (
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-envoy-external-address",
    "x-envoy-internal",
)
"""Headers that say what the proxy knows, whatever the client says; elsewhere than at the edge they are the client's."""


def lookalikes(header: str) -> list[str]:
    """What servers that are shown `_` for `-` take for `header`, but for itself."""
    choices = ("-_" if letter == "-" else letter for letter in header)
    _, *others = map("".join, itertools.product(*choices))
    return others


def where_questions_come() -> Any:
    """On the way to a server that may be asked for policies, where a question has to go on as one: in a waypoint, by
    which pods' nodes ask in the pods' names, and where the server is."""
    return _taken(_anywhere())


def of_pods() -> Any:
    """Where a pod's own requests leave its node: no question goes this way."""
    return _taken((*_anywhere(), *_questions()))


def at_the_edge() -> Any:
    """Where nobody knows who clients are."""
    return _taken((*_anywhere(), *_questions(), *_alike(_VOUCHED_AT_THE_EDGE)))


def _anywhere() -> Iterable[str]:
    return (*_ORDERS_TO_PROXY, *_alike(_VOUCHED), refusals.HEADER)


def _questions() -> Iterable[str]:
    question = authorizers.QUESTION
    return (question, *lookalikes(question))


def _alike(headers: Iterable[str]) -> Iterable[str]:
    return itertools.chain.from_iterable(map(lookalikes, headers))


def _taken(headers: Iterable[str]) -> Any:
    mutations = [mutation_rules_pb2.HeaderMutation(remove=each) for each in headers]
    return extension_pb2.TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation",
        typed_config=pack(header_mutation_pb2.HeaderMutation(mutations=mutations)),
    )
