"""`istio.security.Authorization` to and from `ambit.model.policy.Authorization`."""

import ipaddress
from collections.abc import Iterable

from ambit.core.address import Network
from ambit.model.policy import (
    Action,
    Authorization,
    Clause,
    Exact,
    Match,
    Prefix,
    Presence,
    Rule,
    Scope,
    ServiceAccountMatch,
    StringMatch,
    Suffix,
)
from ambit.xds import fields
from ambit.xds.protos import authorization_pb2 as pb


def encode_authorization(policy: Authorization) -> bytes:
    encoded = pb.Authorization(
        name=policy.name,
        namespace=policy.namespace,
        scope=fields.number(policy.scope),
        action=fields.number(policy.action),
        rules=[
            pb.Rule(
                clauses=[
                    pb.Clause(matches=[_encode_match(match) for match in clause.matches])
                    for clause in rule.clauses
                ]
            )
            for rule in policy.rules
        ],
        dry_run=policy.dry_run,
    )
    return encoded.SerializeToString(deterministic=True)


def decode_authorization(data: bytes) -> Authorization:
    """Raises ValueError naming the field."""
    policy = fields.parse(pb.Authorization, data)
    action = fields.enum(Action, policy.action, "action")
    return Authorization(
        name=policy.name,
        namespace=policy.namespace,
        scope=fields.enum(Scope, policy.scope, "scope"),
        action=action,
        rules=tuple(
            Rule(clauses=tuple(_decode_clause(clause, action) for clause in rule.clauses))
            for rule in policy.rules
        ),
        dry_run=policy.dry_run,
    )


def _encode_match(match: Match) -> pb.Match:
    return pb.Match(
        namespaces=_strings(match.namespaces),
        not_namespaces=_strings(match.not_namespaces),
        principals=_strings(match.principals),
        not_principals=_strings(match.not_principals),
        source_ips=_networks(match.source_ips),
        not_source_ips=_networks(match.not_source_ips),
        destination_ips=_networks(match.destination_ips),
        not_destination_ips=_networks(match.not_destination_ips),
        destination_ports=match.destination_ports,
        not_destination_ports=match.not_destination_ports,
        service_accounts=_accounts(match.service_accounts),
        not_service_accounts=_accounts(match.not_service_accounts),
    )


def _decode_clause(clause: pb.Clause, action: Action) -> Clause:
    """A match with an extension has a condition that is not known here. It lets nobody in and keeps everybody out: in
    ALLOW it never holds, in DENY it holds when its other conditions do."""
    matches: list[Match] = []
    for encoded in clause.matches:
        match = _decode_match(encoded)
        if encoded.extensions and action is Action.ALLOW:
            match = Match()
        elif encoded.extensions and match == Match():
            return Clause()
        matches.append(match)
    return Clause(tuple(matches))


def _decode_match(match: pb.Match) -> Match:
    return Match(
        namespaces=_read_strings(match.namespaces, "namespaces"),
        not_namespaces=_read_strings(match.not_namespaces, "not_namespaces"),
        principals=_read_strings(match.principals, "principals"),
        not_principals=_read_strings(match.not_principals, "not_principals"),
        source_ips=_read_networks(match.source_ips, "source_ips"),
        not_source_ips=_read_networks(match.not_source_ips, "not_source_ips"),
        destination_ips=_read_networks(match.destination_ips, "destination_ips"),
        not_destination_ips=_read_networks(match.not_destination_ips, "not_destination_ips"),
        destination_ports=fields.ports(match.destination_ports, "destination_ports"),
        not_destination_ports=fields.ports(match.not_destination_ports, "not_destination_ports"),
        service_accounts=_read_accounts(match.service_accounts),
        not_service_accounts=_read_accounts(match.not_service_accounts),
    )


def _strings(matches: Iterable[StringMatch]) -> list[pb.StringMatch]:
    encoded = []
    for match in matches:
        item = pb.StringMatch()
        match match:
            case Exact(value):
                item.exact = value
            case Prefix(value):
                item.prefix = value
            case Suffix(value):
                item.suffix = value
            case Presence():
                item.presence.SetInParent()
        encoded.append(item)
    return encoded


def _read_strings(matches: Iterable[pb.StringMatch], field: str) -> tuple[StringMatch, ...]:
    decoded: list[StringMatch] = []
    for match in matches:
        match match.WhichOneof("match_type"):
            case "exact":
                decoded.append(Exact(match.exact))
            case "prefix":
                decoded.append(Prefix(match.prefix))
            case "suffix":
                decoded.append(Suffix(match.suffix))
            case "presence":
                decoded.append(Presence())
            case _:
                raise ValueError(f"{field}: a string match without a kind")
    return tuple(decoded)


def _networks(networks: Iterable[Network]) -> list[pb.Address]:
    return [
        pb.Address(address=network.network_address.packed, length=network.prefixlen) for network in networks
    ]


def _read_networks(networks: Iterable[pb.Address], field: str) -> tuple[Network, ...]:
    decoded: list[Network] = []
    for network in networks:
        address = fields.address(network.address, field)
        if network.length > address.max_prefixlen:
            raise ValueError(f"{field}: {address}/{network.length} is longer than an address")
        decoded.append(ipaddress.ip_network((address, network.length), strict=False))
    return tuple(decoded)


def _accounts(accounts: Iterable[ServiceAccountMatch]) -> list[pb.ServiceAccountMatch]:
    return [
        pb.ServiceAccountMatch(namespace=account.namespace, serviceAccount=account.service_account)
        for account in accounts
    ]


def _read_accounts(accounts: Iterable[pb.ServiceAccountMatch]) -> tuple[ServiceAccountMatch, ...]:
    return tuple(ServiceAccountMatch(account.namespace, account.serviceAccount) for account in accounts)
