import datetime as dt

import pytest

from ambit.control.leader import DURATION, GIVE_UP, Leadership
from ambit.core.errors import Unreachable
from ambit.kube.errors import AlreadyExists, Conflict, NotFound


class Leases:
    """One Lease with optimistic concurrency."""

    def __init__(self):
        self.lease = None
        self.version = 0
        self.away = False

    async def get(self, resource, name, namespace):
        if self.away:
            raise Unreachable("away")
        if self.lease is None:
            raise NotFound(404, "NotFound", "no lease")
        return self.lease

    async def create(self, resource, value, namespace):
        if self.lease is not None:
            raise AlreadyExists(409, "AlreadyExists", "exists")
        return self.store(value)

    async def replace(self, resource, value, namespace):
        if value["metadata"]["resourceVersion"] != str(self.version):
            raise Conflict(409, "Conflict", "changed")
        return self.store(value)

    def store(self, value):
        self.version += 1
        metadata = {**value["metadata"], "resourceVersion": str(self.version)}
        self.lease = {**value, "metadata": metadata}
        return self.lease


class Replicas:
    def __init__(self):
        self.api = Leases()
        self.now = 0.0

    def replica(self, name):
        return Leadership(
            self.api,
            "ambit-system",
            "ambit-control",
            name,
            clock=lambda: self.now,
            wall=lambda: dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=self.now),
            on_start=lambda: None,
        )


@pytest.fixture
def replicas():
    return Replicas()


async def test_the_first_replica_leads_and_the_second_waits(replicas):
    one, two = replicas.replica("one"), replicas.replica("two")
    await one.campaign()
    await two.campaign()
    assert (one.leading, two.leading) == (True, False)
    for _ in range(10):
        replicas.now += DURATION / 3
        await one.campaign()
        await two.campaign()
        assert (one.leading, two.leading) == (True, False)


async def test_an_abandoned_lease_is_taken_when_it_is_surely_over(replicas):
    one, two = replicas.replica("one"), replicas.replica("two")
    await one.campaign()
    await two.campaign()
    replicas.now += GIVE_UP
    await two.campaign()
    assert (one.leading, two.leading) == (False, False)
    replicas.now += DURATION - GIVE_UP
    await two.campaign()
    assert (one.leading, two.leading) == (False, True)
    assert replicas.api.lease["spec"]["leaseTransitions"] == 1
    await one.campaign()
    assert not one.leading


async def test_a_leader_that_cannot_renew_stops_to_lead(replicas):
    one = replicas.replica("one")
    await one.campaign()
    replicas.api.away = True
    replicas.now += GIVE_UP
    with pytest.raises(Unreachable):
        await one.campaign()
    assert not one.leading


async def test_of_two_that_take_it_at_once_one_wins(replicas):
    replicas.api.store({"metadata": {}, "spec": {"holderIdentity": ""}})
    one, two = replicas.replica("one"), replicas.replica("two")
    before = replicas.api.lease
    await one.campaign()
    replicas.api.get, real = (lambda *_: immediate(before)), replicas.api.get
    with pytest.raises(Conflict):
        await two.campaign()
    replicas.api.get = real
    assert (one.leading, two.leading) == (True, False)


async def immediate(value):
    return value


async def test_a_released_lease_is_free_at_once(replicas):
    one, two = replicas.replica("one"), replicas.replica("two")
    await one.campaign()
    await one._resign()
    assert not one.leading
    await two.campaign()
    assert two.leading
