"""Headers of a tunnel's request about its client."""

from hypothesis import given
from hypothesis import strategies as st

from ambit.core.identity import Identity
from ambit.envoy import tcp_proxy
from ambit.model.workload import Locality, Workload, WorkloadType
from ambit.plan.announcement import Baggage, baggage, parse_baggage, tags

texts = st.text(max_size=10).filter(str.isprintable)
ZTUNNELS = (
    "k8s.cluster.name=c1,k8s.namespace.name=shop,k8s.cronjob.name=nightly,service.name=web,service.version=v2,"
    "cloud.region=r,cloud.availability_zone=z"
)


def workload(**fields: object) -> Workload:
    return Workload(uid="u", name="web-0", namespace="shop", identity=Identity("td", "shop", "web"), **fields)


def test_every_item_is_named_as_by_ztunnel() -> None:
    described = workload(
        cluster_id="c1",
        workload_type=WorkloadType.CRONJOB,
        workload_name="nightly",
        canonical_name="web",
        canonical_revision="v2",
        locality=Locality("r", "z"),
    )
    assert baggage(described) == ZTUNNELS


def test_what_is_empty_is_left_out() -> None:
    assert baggage(workload()) == "k8s.namespace.name=shop"


@given(texts, texts, texts, texts, st.sampled_from(WorkloadType))
def test_what_was_said_is_read(cluster: str, name: str, service: str, zone: str, kind: WorkloadType) -> None:
    described = workload(
        cluster_id=cluster,
        workload_name=name,
        workload_type=kind,
        canonical_name=service,
        locality=Locality("", zone),
    )
    text = baggage(described)
    assert text.isascii() and text.isprintable()
    read = parse_baggage(text)
    assert read.workload_type == (kind if name else WorkloadType.POD)
    assert (read.cluster, read.workload_name, read.canonical_name, read.locality) == (
        cluster,
        name,
        service,
        Locality("", zone),
    )
    assert read.namespace == "shop"


@given(st.text(alphabet=st.sampled_from("k8s.namespace.name=,;%\t é0"), max_size=60) | st.text(max_size=20))
def test_whatever_a_peer_says_is_read(text: str) -> None:
    assert isinstance(parse_baggage(text), Baggage)


def test_what_could_not_be_shown_is_left_out() -> None:
    assert parse_baggage("service.name=a%0Ab,service.version=" + "v" * 254 + ",k8s.pod.name=%09") == Baggage()


def test_properties_and_blanks_are_no_part_of_a_value() -> None:
    read = parse_baggage(" k8s.namespace.name = shop ;secret=1 , k8s.namespace.name=other, nonsense,=,")
    assert read == Baggage(namespace="shop")


def test_a_pod_that_is_not_known_yet_says_nothing_of_itself() -> None:
    assert tags(None, "") == {}


def test_a_service_is_named_by_its_host() -> None:
    assert tags(None, "shop/web.shop.svc.cluster.local") == {
        tcp_proxy.HOST: ";host=web.shop.svc.cluster.local"
    }
