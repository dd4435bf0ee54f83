"""Names can be read back: what is asked for by name is what was meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.model.workload import GatewayAddress

PART = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
PODS = st.builds(names.pod_key, PART, PART, PART)
IDENTITIES = st.builds(Identity, PART, PART, PART)
SERVICES = st.just("") | st.builds("{}/{}.svc".format, PART, PART)


@given(PODS, st.ip_addresses(), st.integers(1, 65535), st.integers(0, 50))
def test_destinations(pod: str, address, port: int, generation: int) -> None:  # type: ignore[no-untyped-def]
    name = names.destination(pod, address, port, generation)
    assert names.parse_cluster(name) == names.Destination(pod, address, port, generation)
    assert names.pod_of(name) == pod
    assert names.generation_of(name) == generation
    assert name.startswith(names.destination_prefix(pod, generation))
    assert not name.startswith(names.destination_prefix(pod, generation + 1))


@given(PODS, st.lists(PART, min_size=1, max_size=4).map(".".join), st.integers(1, 65535), st.integers(0, 50))
def test_host_names(pod: str, hostname: str, port: int, generation: int) -> None:
    name = names.resolved(pod, hostname, port, generation)
    assert names.parse_cluster(name) == names.Resolved(pod, hostname, port, generation)
    assert names.pod_of(name) == pod
    assert names.generation_of(name) == generation
    assert names.forms(name) == {name}


@given(IDENTITIES, SERVICES)
def test_tunnels(identity: Identity, service: str) -> None:
    name = names.tunnel(identity, service)
    assert names.parse_cluster(name) == names.Tunnel(identity, service)
    assert names.pod_of(name) is None


GATEWAYS = st.builds(
    GatewayAddress, st.integers(1, 65535), namespace=PART, hostname=st.builds("{}.test".format, PART)
) | st.builds(GatewayAddress, st.integers(1, 65535), network=st.just("") | PART, address=st.ip_addresses())


@given(st.sampled_from([4, 6]), st.builds("{}.svc:80".format, PART), SERVICES, GATEWAYS)
def test_tunnels_inside_of_tunnels(
    family: int, authority: str, service: str, gateway: GatewayAddress
) -> None:
    asked = names.Inner(family, authority, service, gateway)
    assert names.parse_cluster(names.inner(asked)) == asked
    assert names.pod_of(names.inner(asked)) is None


@given(IDENTITIES)
def test_secrets(identity: Identity) -> None:
    server, client = names.server_secret(identity), names.client_secret(identity)
    assert server != client
    assert names.parse_secret(server) == names.parse_secret(client) == identity


@given(PODS)
def test_resources_of_a_pod(pod: str) -> None:
    makers = (
        names.outbound_listener,
        names.hbone_listener,
        names.plaintext_listener,
        names.local_cluster,
        names.policy,
        names.handed,
        names.application,
    )
    assert {names.pod_of(make(pod)) for make in makers} == {pod}
    assert len({make(pod) for make in makers}) == len(makers)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "dst|",
        "dns|a/b/c",
        "dns|a/b/c|x",
        "dst|a/b/c",
        "dst|a/b/c|1.2.3.4",
        "hbone|x",
        "refused",
        "local|a/b/c",
    ],
)
def test_other_names_ask_for_nothing(name: str) -> None:
    with pytest.raises(ValueError):
        names.parse_cluster(name)


@given(st.text())
def test_any_text_is_a_question_or_an_error(text: str) -> None:
    try:
        names.parse_cluster(text)
    except ValueError:
        return
