"""Which names a question may mean, in the order in which they are tried.

Pure. The rules are ztunnel's (`dns/handler.rs`, `dns/server.rs`), so that a pod resolves the same names under
either node proxy: the name as asked and what Kubernetes would make of a short name; then, where it ends in
one of the client's search domains, the name without it, expanded in the same way.
"""

from collections.abc import Iterator, Sequence

import msgspec

SVC = "svc"


class Candidate(msgspec.Struct, frozen=True):
    """One name to look up. `alias` is the name without its search domain, None when none was removed."""

    name: str
    alias: str | None = None


def candidates(asked: str, namespace: str, domain: str, searches: Sequence[str]) -> Iterator[Candidate]:
    """Names to look up for a client in `namespace`; `domain` is the cluster's, `searches` the client's."""
    for name in expansions(asked, namespace, domain):
        yield Candidate(name)
    for search in searches:
        stripped = asked.removesuffix(f".{search}")
        if stripped and stripped != asked:
            for name in expansions(stripped, namespace, domain):
                yield Candidate(name, stripped)


def expansions(name: str, namespace: str, domain: str) -> Iterator[str]:
    """The name itself, then the fully qualified names it may be short for."""
    yield name
    labels = name.count(".") + 1
    ends_in_svc = name.endswith(f".{SVC}")
    if labels == 1:
        yield f"{name}.{namespace}.{SVC}.{domain}"
    elif labels == 2:
        yield f"{name}.{SVC}.{domain}"
        yield f"{name}.{namespace}.{SVC}.{domain}"
    elif labels == 3:
        if ends_in_svc:
            yield f"{name}.{domain}"
        yield f"{name}.{SVC}.{domain}"
    elif labels == 4 and ends_in_svc:
        yield f"{name}.{domain}"


def wildcards(name: str) -> Iterator[str]:
    """`*.b.c`, `*.c` for `a.b.c`: from the most to the least specific."""
    rest = name
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"


def default_searches(namespace: str, domain: str) -> tuple[str, ...]:
    """The search list that kubelet gives a pod."""
    return (f"{namespace}.{SVC}.{domain}", f"{SVC}.{domain}", domain)
