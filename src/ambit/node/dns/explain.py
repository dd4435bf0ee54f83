"""Why a name is answered as it is in one pod, and where the mesh and the pod's nameservers disagree.

The steps are those of the pod's resolver (resolv.conf(5)): a name with fewer dots than `ndots` is asked with each
search domain first. Each question is answered by the very functions that answer the pod, and put to its nameservers.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from ambit.core.dns import Rcode, Record, Type, encode_query, parse_query
from ambit.core.dns_reply import chain, read_answers
from ambit.model.service import HealthPolicy, IpFamilies, Service
from ambit.model.workload import WorkloadStatus
from ambit.node.dns.answer import Client, ServiceNames, Settings, addresses, find, finish
from ambit.node.dns.names import candidates, default_searches, wildcards

NDOTS = 5
"""The kubelet's."""
AT_ONCE = 16
"""Names that are compared at a time."""
MESH, NAMESERVER, NOBODY = "mesh", "nameserver", "nobody"
AGREE, DIFFER, ONLY_MESH = "agree", "differ", "only the mesh"
_TYPES = (Type.A, Type.AAAA)


class Asking(Protocol):
    """A pod's DNS proxy, as far as it is needed here."""

    client: Client
    settings: Settings
    view: ServiceNames

    async def ask(self, data: bytes, over_tcp: bool = False) -> bytes | None: ...


class Said(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An answer: `rcode` in words, empty when nobody answered."""

    rcode: str
    addresses: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


class Step(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One question of the resolver, for both families. `by` is who answers it; `owner` the object behind a name of the
    mesh, `host` its host name and `as_name` what was made of the question to find it. `notes` say why there is no
    address, and what was passed over."""

    question: str
    by: str
    search: str = ""
    owner: str = ""
    host: str = ""
    as_name: str = ""
    addresses: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    nameserver: Said | None = None


class Explanation(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    searches: tuple[str, ...]
    nameservers: tuple[str, ...]
    steps: tuple[Step, ...]
    addresses: tuple[str, ...]


class Compared(msgspec.Struct, frozen=True, rename="camel"):
    """One name of the mesh. Only a Service that the nameservers know otherwise is a disagreement."""

    name: str
    owner: str
    verdict: str
    mesh: tuple[str, ...]
    nameserver: Said


def questions(name: str, searches: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What a resolver asks in turn: the question, and the search domain in it."""
    whole = name.lower().rstrip(".")
    few = whole.count(".") < NDOTS
    if name.endswith("."):
        yield whole, ""
        return
    if not few:
        yield whole, ""
    yield from ((f"{whole}.{search}", search) for search in searches)
    if few:
        yield whole, ""


async def explain(name: str, pod: Asking, nameservers: Iterable[str]) -> Explanation:
    """Raises Malformed for what is no name."""
    searches = _searches(pod)
    steps: list[Step] = []
    for question, search in questions(name, searches):
        step = await _step(question, search, pod)
        steps.append(step)
        if step.addresses:
            break
    return Explanation(name, searches, tuple(nameservers), tuple(steps), steps[-1].addresses)


async def compare(pod: Asking, services: Iterable[Service]) -> list[Compared]:
    """Every host of these services that the pod may see, in order of name; patterns are left out."""
    hosts = sorted({each.hostname for each in services if not each.hostname.startswith("*")})
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(host: str) -> Compared | None:
        async with turns:
            return await _compared(host, pod)

    return [found for found in await asyncio.gather(*map(one, hosts)) if found is not None]


async def _compared(host: str, pod: Asking) -> Compared | None:
    found = find(host, pod.client, pod.view, pod.settings)
    if found is None:
        return None
    mesh = _local(found.service, pod)
    said = await _nameservers_say(host, pod)
    is_service = _is_kubernetes(found.service, pod.settings.domain)
    otherwise = DIFFER if is_service else ONLY_MESH
    verdict = AGREE if set(said.addresses) == set(mesh) else otherwise
    return Compared(host, owner(found.service, pod.settings.domain), verdict, mesh, said)


async def _step(question: str, search: str, pod: Asking) -> Step:
    said = await _nameservers_say(question, pod)
    found = find(question, pod.client, pod.view, pod.settings)
    passed = tuple(_passed_over(question, found.service if found else None, pod))
    if found is not None:
        notes = (*_absences(found.service, pod), *passed)
        return Step(
            question,
            MESH,
            search,
            owner(found.service, pod.settings.domain),
            found.host,
            found.candidate.name if found.candidate.name != question else "",
            _local(found.service, pod),
            notes,
            said,
        )
    finished = _finished(question, said, pod)
    if finished is not None:
        return Step(
            question,
            NAMESERVER,
            search,
            owner(finished, pod.settings.domain),
            said.aliases[-1],
            addresses=_local(finished, pod),
            notes=("the nameserver gives an alias only, and the mesh knows where it leads", *passed),
            nameserver=said,
        )
    by = NAMESERVER if said.rcode else NOBODY
    return Step(question, by, search, addresses=said.addresses, notes=passed, nameserver=said)


def owner(service: Service, domain: str) -> str:
    kind = "Service" if _is_kubernetes(service, domain) else "ServiceEntry"
    return f"{kind} {service.namespace}/{service.name}"


def _is_kubernetes(service: Service, domain: str) -> bool:
    return service.hostname == f"{service.name}.{service.namespace}.svc.{domain}"


def _local(service: Service, pod: Asking) -> tuple[str, ...]:
    found = (
        address
        for version in (4, 6)
        for address in addresses(service, version, pod.client, pod.view, pod.settings)
    )
    return tuple(map(str, sorted(found, key=lambda each: (each.version, each))))


def _finished(question: str, said: Said, pod: Asking) -> Service | None:
    if not said.aliases or said.addresses:
        return None
    last = Record(question, 0, said.aliases[-1], Type.CNAME)
    query = parse_query(encode_query(question, Type.A))
    resolution = finish(query, (last,), pod.client, pod.view, pod.settings, lambda _: None)
    return resolution.service if resolution is not None else None


def _absences(service: Service, pod: Asking) -> Iterator[str]:
    """Why an address of either family is missing."""
    for version, only_other in ((4, IpFamilies.IPV6_ONLY), (6, IpFamilies.IPV4_ONLY)):
        if addresses(service, version, pod.client, pod.view, pod.settings):
            continue
        none = f"no IPv{version} address"
        if version == 6 and not pod.settings.ipv6:
            yield f"{none}: IPv6 is off"
        elif service.ip_families == only_other:
            yield f"{none}: the service is IPv{4 if version == 6 else 6} only"
        elif service.addresses:
            here = [each for each in service.addresses if each.network == pod.client.network]
            yield f"{none}: {'the service has none' if here else 'the service is of another network'}"
        else:
            yield f"{none}: {_why_headless(service, version, pod)}"


def _why_headless(service: Service, version: int, pod: Asking) -> str:
    everybody = (
        service.load_balancing is not None and service.load_balancing.health_policy == HealthPolicy.ALLOW_ALL
    )
    endpoints = pod.view.endpoints(service)
    if not endpoints:
        return "it is headless and has no endpoint"
    ready = [each for each in endpoints if everybody or each.status == WorkloadStatus.HEALTHY]
    if not ready:
        return f"it is headless and of its endpoints ({len(endpoints)}) none is ready"
    near = [each for each in ready if each.network == pod.client.network]
    if not near:
        return "it is headless and its endpoints are in another network"
    return f"it is headless and its endpoints have no IPv{version} address"


def _passed_over(question: str, chosen: Service | None, pod: Asking) -> Iterator[str]:
    """Services that have the name and are not what it stands for."""
    domain = pod.settings.domain
    said: set[str] = set()
    for candidate in candidates(question, pod.client.namespace, domain, _searches(pod)):
        for host in (candidate.name, *wildcards(candidate.name)):
            for service in pod.view.services_by_hostname(host):
                if service == chosen or service.key in said:
                    continue
                said.add(service.key)
                name = f"{owner(service, domain)} ({host})"
                if not service.is_visible_to(pod.client.namespace):
                    yield f"{name} is exported to its own namespace only"
                elif not service.addresses and not _is_kubernetes(service, domain):
                    yield f"{name} has no address"
                elif chosen is not None:
                    yield f"{name} has the name too, and comes behind"


async def _nameservers_say(name: str, pod: Asking) -> Said:
    """Both families together; the better of both codes."""
    replies = await asyncio.gather(*(_reply(name, kind, pod) for kind in _TYPES))
    known = [(reply[3] & 15, read_answers(reply) or ()) for reply in replies if reply and len(reply) > 3]
    if not known:
        return Said("")
    records = [record for _, several in known for record in several]
    found = {str(each.data): each.type for each in records if each.type in _TYPES}
    return Said(
        _in_words(min(rcode for rcode, _ in known)),
        tuple(sorted(found, key=lambda text: (found[text], text))),
        tuple(str(alias.data) for alias in chain(records, name)),
    )


async def _reply(name: str, kind: int, pod: Asking) -> bytes | None:
    data = encode_query(name, kind)
    reply = await pod.ask(data)
    if reply is not None and len(reply) > 2 and reply[2] & 0x02:
        return await pod.ask(data, over_tcp=True) or reply
    return reply


def _in_words(rcode: int) -> str:
    try:
        return Rcode(rcode).name
    except ValueError:
        return str(rcode)


def _searches(pod: Asking) -> tuple[str, ...]:
    own = pod.client.searches
    return own if own is not None else default_searches(pod.client.namespace, pod.settings.domain)
