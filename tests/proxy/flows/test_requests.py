"""From Envoy's access-log messages about requests to records and counters."""

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.agent import request_metrics as metrics
from ambit.agent.record import Flow, Reporter
from ambit.agent.request_entry import read, read_asked, requests
from ambit.agent.series import MOST_VALUES, Series
from ambit.envoy.logs import access_log, request_log
from ambit.envoy.logs.access_log import BAGGAGE, HOST, IDENTITY, POD, POLICY, SERVICE
from ambit.model.metrics import MetricsNote, Override, mark
from ambit.proxy.flows.collector import RequestCollector
from tests.node.flows.envoy_lines import STARTED, message

CLIENT = "spiffe://cluster.local/ns/shop/sa/web"
USUAL = {
    SERVICE: "shop/cart.shop.svc.cluster.local",
    "port": "80",
    "client": "10.0.0.1",
    IDENTITY: CLIENT,
    BAGGAGE: "k8s.namespace.name=shop,k8s.deployment.name=web,service.name=web,service.version=v1",
    "protocol": "HTTP/1.1",
    "code": "200",
    "route": "shop/cart/0",
    HOST + POD: "cart-1",
    HOST + IDENTITY: "spiffe://cluster.local/ns/shop/sa/cart",
    HOST + request_log.AUTHORITY: "10.0.0.2:8080",
    HOST + BAGGAGE: "k8s.namespace.name=shop,k8s.deployment.name=cart",
    "details": "via_upstream",
}


def text(asked: str = "GET cart /", numbers: str = "10\t20\t1\t-", **fields: str) -> str:
    """One request; `fields` by the keys of the layout."""
    known = {**USUAL, **fields}
    assert set(known) <= set(request_log.ABOUT), known
    about = "\t".join(known.get(key) or "-" for key in request_log.ABOUT)
    return f"{STARTED}.012000\t4711\t{numbers}\n{about}\n{asked}\n-\n-\n-\n-"


def collector(*texts: str) -> RequestCollector:
    made = RequestCollector(proxy="shop/way", node="node1")
    made.take(message(*texts))
    return made


def flow(**fields: str) -> Flow:
    (found,) = collector(text(**fields)).newest()
    return found


def test_what_is_known_of_the_endpoint_is_one_text() -> None:
    """As L7 proxies say it; each thing by itself as nodes do."""
    known = (USUAL[HOST + POD], USUAL[HOST + IDENTITY], USUAL[HOST + BAGGAGE])
    joined = flow(**{HOST + POD: access_log.known(*known), HOST + IDENTITY: "", HOST + BAGGAGE: ""})
    assert joined == flow()
    assert joined.destination.identity == USUAL[HOST + IDENTITY]


def lines(of: RequestCollector, metric: str) -> list[str]:
    return [line for line in "".join(metrics.render(of.series)).splitlines() if line.startswith(metric)]


def test_what_metrics_leave_out() -> None:
    """Requests that differ in nothing else are one series then."""
    other = {SERVICE: "shop/db.shop.svc.cluster.local"}
    made = collector(text(), text(code="500"), text(code="404", **other))
    note = MetricsNote(
        {"istio_requests": Override(labels=(("response_code", None), ("team", 'a"b')))},
        {other[SERVICE]: {"istio_requests": Override(True)}},
    )
    shown = "".join(metrics.render(made.series, note)).splitlines()
    (line,) = (each for each in shown if each.startswith("istio_requests_total{"))
    assert line.endswith('team="a\\"b"} 2') and "response_code" not in line.replace("grpc_response", "")
    durations = [each for each in shown if each.startswith("istio_request_bytes_count")]
    assert len(durations) == 3 and all("response_code=" in each for each in durations)


def test_histograms_of_what_is_one_are_added_up() -> None:
    note = MetricsNote({"istio_request_bytes": Override(labels=(("response_code", None),))})
    made = collector(text(), text(code="500"))
    shown = "".join(metrics.render(made.series, note)).splitlines()
    wanted = ("istio_request_bytes_bucket{", "istio_request_bytes_sum{", "istio_request_bytes_count{")
    lines = [each for each in shown if each.startswith(wanted)]
    assert [each.rpartition(" ")[2] for each in lines[-3:]] == ["2", "20", "2"]
    assert len({each.partition("le=")[0] for each in lines[:-2]}) == 1


def valued(numbers: str = "10\t20\t1\t-", more: str = "", **values: str) -> str:
    """A request with the values of expressions; `more` comes after the values."""
    first, about, *asked = text(numbers=numbers).split("\n")
    marks = ",".join(map(mark, values))
    return "\n".join((f"{first}\t{marks}", about, *values.values(), *([more] if more else []), *asked))


TEAM = MetricsNote({"istio_requests": Override(expressions=(("team", "a"),))})


def by_team(made: RequestCollector, note: MetricsNote = TEAM) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in "".join(metrics.render(made.series, note)).splitlines():
        if line.startswith("istio_requests_total{"):
            (team,) = re.findall(r'team="([^"]*)"', line)
            assert team not in found
            found[team] = int(line.rpartition(" ")[2])
    return found


def test_values_of_expressions_are_labels() -> None:
    """Of metrics that nothing is said of they are none."""
    made = collector(
        valued(a="red", b="1"), valued(a="red", b="2"), valued(a="blue", b="-"), valued(b="1"), text()
    )
    assert by_team(made) == {"red": 2, "blue": 1, "unknown": 2}
    shown = "".join(metrics.render(made.series, TEAM))
    (size,) = re.findall(r"^istio_request_bytes_count\{.*\} (\d+)$", shown, re.MULTILINE)
    assert size == "5"
    (first, *_) = made.newest()
    assert first.request is not None and first.request.method == "GET"


def test_a_value_with_line_feeds_pretends_nothing() -> None:
    made = collector(valued(a="red", more="GET other /"))
    assert by_team(made) == {"unknown": 1}
    (found,) = made.newest()
    assert found.request is not None and (found.request.method, found.request.host) == ("", "")


def test_values_are_too_many_some_time() -> None:
    """Those that came first stay."""
    made = collector(*(valued(a=f"t{i}", b="1") for i in range(MOST_VALUES + 50)), valued(a="t1", b="2"))
    found = by_team(made)
    of_other = MetricsNote({"istio_requests": Override(expressions=(("team", "b"),))})
    assert by_team(made, of_other) == {"1": MOST_VALUES + 50, "2": 1}
    assert len(found) == MOST_VALUES + 1
    assert (found["other"], found["t1"]) == (50, 2)
    assert sum(found.values()) == MOST_VALUES + 51


def test_values_leave_room_for_what_has_none() -> None:
    made = Series(("who",), 1, 100)
    for i in range(300):
        made.of((f"w{i % 40}",), (("a", f"v{i}"),))[0] += 1
        made.of((f"w{i % 40}",))[0] += 1
    assert {labels["who"] for labels, *_ in made.sets()} == {f"w{i}" for i in range(40)}
    assert len(made) == 50 + 40


def test_who_denied() -> None:
    denied = flow(code="403", details="rbac_access_denied_matched_policy[a]", **{POLICY: "shop/deny[0]"})
    assert (denied.decision, denied.policy, denied.error) == ("deny", "shop/deny[0]", "")
    assert flow(**{POLICY: "shop/allow[1]"}).policy == "shop/allow[1]"
    assert flow(**{POLICY: "default"}).policy == ""


@pytest.mark.parametrize("details", ["ext_authz_denied", "jwt_authn_access_denied{Jwt_is_expired}"])
def test_others_that_decide(details: str) -> None:
    assert flow(code="401", details=details, reason="UnauthorizedExternalService").decision == "deny"


@pytest.mark.parametrize("details", ["ext_authz_denied", "ext_authz_error"])
def test_by_which_rule_a_request_was_shown_to_who_denied_it(details: str) -> None:
    shown = {request_log.SHOWN: '{"asks|a|80|0":"shop/a[0]","asks|a|80|1":"shop/b[2]"}'}
    denied = flow(code="403", details=details, **{POLICY: "shop/allow[0]"}, **shown)
    assert (denied.decision, denied.policy) == ("deny", "shop/a[0] or shop/b[2]")
    assert flow(**{POLICY: "shop/allow[0]"}, **shown).policy == "shop/allow[0]"
    assert flow(details=details, shown='{"a":').policy == flow(details=details, shown="{}").policy == ""


@pytest.mark.feature("F169")
def test_what_is_audited() -> None:
    told = flow(dry_run="audited:shop/a[0],shop/b[1]", dry_run_result="allowed")
    assert (told.audited, told.dry_run) == (("shop/a[0]", "shop/b[1]"), "")
    both = flow(dry_run="shop/trial[0]audited:shop/a[0]", dry_run_result="denied")
    assert (both.audited, both.dry_run) == (("shop/a[0]",), "shop/trial[0]")
    denied = flow(code="403", details="rbac_access_denied_matched_policy[a]", dry_run="audited:shop/a[0]")
    assert denied.audited == ("shop/a[0]",)


def test_an_answer_of_the_application_is_no_decision() -> None:
    assert (flow(code="403").decision, flow(code="503").error) == ("allow", "")


def test_what_dry_run_policies_would_have_done() -> None:
    fields = {"dry_run": "shop/trial[0]"}
    assert flow(**fields, dry_run_result="denied").dry_run == "shop/trial[0]"
    assert flow(**fields, dry_run_result="allowed").dry_run == ""


def test_what_a_client_says_against_its_certificate_counts_nothing() -> None:
    said = flow(**{BAGGAGE: "k8s.namespace.name=kube-system,k8s.deployment.name=king"}).source
    assert (said.namespace, said.workload_name, said.identity) == ("shop", "", CLIENT)


def test_a_tab_in_what_a_client_says_changes_no_other_field() -> None:
    said = "k8s.namespace.name=shop\tspiffe://cluster.local/ns/shop/sa/king\t403"
    assert flow(**{BAGGAGE: said}).source.identity == CLIENT


def test_a_workload_that_is_called_by_its_own_address_is_no_service() -> None:
    found = flow(**{SERVICE: "Kubernetes//Pod/shop/cart-1"})
    assert (found.destination.service, found.destination.workload) == ("", "cart-1")


def test_at_a_gateway_the_service_is_where_it_led() -> None:
    found = flow(**{SERVICE: "", "cluster": "svc|shop/cart.shop.svc.cluster.local|80"})
    assert (found.reporter, found.destination.service) == (Reporter.GATEWAY, USUAL[SERVICE])


def test_b3_traces() -> None:
    assert read_asked("GET a /\n-\n463ac35c9f6413ad\n-\n-").trace == "0000000000000000463ac35c9f6413ad"
    assert read_asked("GET a /\n-\nnonsense\n-\n-").trace == ""


@pytest.mark.parametrize("broken", ["", "a", "1\t2\n3", text(numbers="x\t20\t1\t-"), text(numbers="10")])
def test_what_is_no_line_of_ours_is_left_out(broken: str) -> None:
    assert list(requests(message(broken, text()))) == list(requests(message(text())))


@given(st.text(), st.text())
def test_nothing_in_texts_breaks_reading(about: str, asked: str) -> None:
    made = RequestCollector(proxy="shop/way", node="node1")
    made.take(message(f"{STARTED}.0\t1\t1\t1\t1\t-\n{about}\n{asked}".encode("utf-8", "replace")))
    assert [each.proxy for each in made.newest()] in ([], ["shop/way"])
    assert (read(about) is None) == (about.count("\t") + 1 < len(request_log.ABOUT))


@pytest.mark.parametrize("of", [CLIENT, "", "nonsense", "spiffe://a/ns/b/sa/c"])
def test_numbers_are_those_of_all_requests(of: str) -> None:
    made = collector(*(text(**{IDENTITY: of}) for _ in range(5)))
    (total,) = lines(made, "istio_requests_total")
    assert f'source_principal="{of or "unknown"}"' in total
    assert total.endswith(" 5")


def test_messages_of_grpc_are_counted() -> None:
    made = collector(text(numbers="10\t20\t1\t3,4", grpc="0"), text(numbers="1\t1\t1\t-", grpc="0"))
    (asked,) = lines(made, "istio_request_messages_total{")
    (told,) = lines(made, "istio_response_messages_total{")
    assert (asked.rpartition(" ")[2], told.rpartition(" ")[2]) == ("3", "4")


def test_label_sets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_SERIES", 2)
    made = collector(*(text(code=str(200 + number)) for number in range(10)))
    assert len(made.series) == 3
    assert sum(int(each.rpartition(" ")[2]) for each in lines(made, "istio_requests_total{")) == 10


def test_buckets_grow() -> None:
    counts = [
        int(each.rpartition(" ")[2])
        for each in lines(
            collector(text(numbers="30\t1\t1\t-"), text(numbers="5\t1\t1\t-")), "istio_request_bytes_bucket"
        )
    ]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 2)


async def test_followers_are_told() -> None:
    made = RequestCollector(proxy="shop/way", node="node1")
    with made.follow() as to_come:
        made.take(message(text("GET cart /x")))
        async with asyncio.timeout(60):
            found = await to_come.get()
    assert found.request is not None
    assert found.request.path == "/x"


def test_clients_words_take_no_more_memory_than_there_is() -> None:
    """What is kept of thousands of requests, and what is remembered of what they share, has a limit."""
    long = "x" * 50_000
    made = collector(text(f"GET cart /{long}"), text(**{BAGGAGE: f"k8s.namespace.name=shop,{long}"}), text())
    usual, announced, asked = made.newest()
    assert asked.request is not None and asked.request.path.endswith("x…")
    assert len(asked.request.path) < 3_000 and asked.request.host == "cart"
    assert announced.source.identity == usual.source.identity
    assert max(map(len, made._lanes)) < 2_000
    assert sum(counts[metrics.REQUESTS] for *_, counts in made.series.sets()) == 3
