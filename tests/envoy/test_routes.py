"""Entries of a table as Envoy's routes: what `ambit.envoy.http.routes` adds to what is written."""

import pytest

from ambit.envoy.http import routes
from ambit.model.http import Action, Backend, Entry, Host, RequestMatch, Retry

WEB = Backend("default/web.default.svc.cluster.local", 80)


@pytest.mark.parametrize(
    ("backoff", "first", "longest"), [(0, 0, 0), (1, 25, 250), (25, 25, 250), (1000, 1000, 10_000)]
)
def test_there_is_a_pause_before_each_further_try(backoff: int, first: int, longest: int) -> None:
    """0 stands for Envoy's own, which are 25 and 250 ms."""
    entry = Entry("default/web/0", RequestMatch(), Action((WEB,), retry=Retry(3, (503,), backoff)))
    table = routes.table("web", (Host(("*",), (entry,)),), port=80)
    _, made = table.virtual_hosts[0].routes
    pauses = made.route.retry_policy.retry_back_off
    assert (pauses.base_interval.ToMilliseconds(), pauses.max_interval.ToMilliseconds()) == (first, longest)
