"""Which names a question may mean, in the order in which they are tried.

Pure. The rules are ztunnel's (`dns/handler.rs`, `dns/server.rs`), so that a pod resolves the same names under
either node proxy: the name as asked and what Kubernetes would make of a short name; then, where it ends in
one of the client's search domains, the name without it, expanded in the same way.
"""

import contextlib
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

import msgspec

from ambit.core.address import Address

SVC = "svc"


class Resolver(msgspec.Struct, frozen=True):
    """Whom a pod asks, and what its resolver appends to names."""

    nameservers: tuple[Address, ...] = ()
    searches: tuple[str, ...] = ()


class Candidate(msgspec.Struct, frozen=True):
    """One name to look up. `alias` is the name without its search domain `search`, None when none was removed."""

    name: str
    alias: str | None = None
    search: str = ""


def candidates(asked: str, namespace: str, domain: str, searches: Sequence[str]) -> Iterator[Candidate]:
    """Names to look up for a client in `namespace`; `domain` is the cluster's, `searches` the client's."""
    for name in expansions(asked, namespace, domain):
        yield Candidate(name)
    for search in searches:
        stripped = asked.removesuffix(f".{search}")
        if stripped and stripped != asked:
            for name in expansions(stripped, namespace, domain):
                yield Candidate(name, stripped, search)


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


def pod_resolver(
    policy: str,
    own: Resolver,
    node: Resolver,
    namespace: str,
    domain: str,
) -> Resolver:
    """What stands in a pod's resolv.conf, from its `dnsPolicy`, its `dnsConfig` (`own`) and the file that the node's
    agent itself was given (`node`): the same nameservers, and behind the cluster's search domains those of the host."""
    of_host = tuple(each for each in node.searches if each != domain and not each.endswith(f".{domain}"))
    match policy:
        case "None":
            base = Resolver()
        case "Default":
            base = Resolver(node.nameservers, of_host)
        case _:
            base = Resolver(node.nameservers, (*default_searches(namespace, domain), *of_host))
    searches = (each.lower().rstrip(".") for each in (*base.searches, *own.searches))
    return Resolver(
        tuple(dict.fromkeys((*base.nameservers, *own.nameservers))),
        tuple(dict.fromkeys(filter(None, searches))),
    )


def parse_resolv_conf(text: str) -> Resolver:
    """Its `nameserver` lines, and the last `search` line as resolv.conf(5) has it."""
    servers: list[Address] = []
    searches: tuple[str, ...] = ()
    for line in text.splitlines():
        match line.split():
            case ["nameserver", address, *_]:
                with contextlib.suppress(ValueError):
                    servers.append(ip_address(address))
            case ["search" | "domain", *names]:
                searches = tuple(names)
            case _:
                pass
    return Resolver(tuple(servers), searches)
