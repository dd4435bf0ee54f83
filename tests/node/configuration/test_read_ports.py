"""Which ports have come to be read, and what is written down of it."""

import json
from pathlib import Path

import msgspec
import pytest

from ambit.agent.publication import Publication
from ambit.envoy import names
from ambit.envoy.node.listeners import read_chain
from ambit.model.inline_rules import InlineRules
from ambit.model.policy import Action, Authorization, Clause, Scope
from ambit.model.policy import Rule as ConnectionRule
from ambit.model.request_policy import RequestAction, RequestPolicy
from ambit.node.configuration.read_ports import Newly, ReadPorts
from ambit.plan.values import CLUSTER, EXTENSION, LISTENER, ROUTES
from ambit.xds.events import Rejected
from ambit.xds.frames import Response
from tests.node.configuration.test_requests import Agent
from tests.plan import cases
from tests.plan.read_pod import READ, SERVER, VIEW, WORKLOAD

POD = "shop/web-0/sandbox"


class Scene:
    def __init__(self, **noted: object) -> None:
        self.kept = {key.replace("_", "-"): json.dumps(each).encode() for key, each in noted.items()}
        self.ports = ReadPorts(self.kept.__setitem__, self.kept.get)
        self.told: list[tuple[Newly, Publication]] = []

    def newly(self, *ports: int) -> list[dict[str, frozenset[int]]]:
        """What is told when these are to be read."""
        found = []
        self.ports.look(POD, frozenset(ports))
        self.ports.sent(Publication({}, {}))
        while not self.ports.published.empty():
            self.told.append(self.ports.published.get_nowait())
            found.append(self.told[-1][0])
        return found

    def answer(self, *, is_taken: bool = True) -> list[str]:
        """To the publication that was told last."""
        return self.ports.settled(*self.told[-1], () if is_taken else [POD])

    @property
    def noted(self) -> object:
        return json.loads(self.kept.get("read-ports", b"null"))


async def test_each_is_told_once() -> None:
    scene = Scene()
    assert scene.newly() == []
    assert scene.newly(80) == [{POD: frozenset({80})}]
    assert scene.newly(80) == []
    assert scene.newly(80, 81) == [{POD: frozenset({81})}]
    assert scene.noted is None


async def test_they_are_unread_until_envoy_has_answered() -> None:
    scene = Scene()
    scene.newly(80)
    assert scene.ports.unread(POD) == {80}
    assert scene.answer() == [POD]
    assert (scene.ports.unread(POD), scene.noted) == (set(), {POD: [80]})
    scene.newly(80, 81)
    assert scene.ports.unread(POD) == {81}


async def test_what_envoy_did_not_take_is_unread_and_told_again() -> None:
    scene = Scene()
    scene.newly(80)
    assert scene.answer(is_taken=False) == []
    assert scene.ports.unread(POD) == {80}
    assert scene.newly(80) == [{POD: frozenset({80})}]
    assert scene.answer() == [POD]


async def test_a_pod_waits_for_its_own_configuration_only() -> None:
    scene = Scene()
    scene.ports.look("shop/other/sandbox", frozenset({80}))
    scene.newly(80)
    assert scene.ports.settled(*scene.told[-1], ["shop/other/sandbox"]) == [POD]
    assert (scene.ports.unread(POD), scene.ports.unread("shop/other/sandbox")) == (set(), {80})


async def test_one_that_is_left_is_read_until_envoy_has_answered() -> None:
    scene = Scene(read_ports={POD: [80, 81]})
    assert scene.newly(81) == [{POD: frozenset()}]
    assert (scene.ports.left(POD), scene.noted) == ({80}, {POD: [81]})
    early = scene.told[-1]
    assert scene.newly() == [{POD: frozenset()}]
    assert scene.ports.settled(*early) == []
    assert scene.answer(is_taken=False) == []
    assert scene.ports.left(POD) == {80, 81}
    assert scene.newly() == [{POD: frozenset()}]
    assert scene.answer() == [POD]
    assert scene.ports.left(POD) == set()


async def test_one_that_is_left_may_come_back() -> None:
    scene = Scene(read_ports={POD: [80]})
    scene.newly()
    assert scene.newly(80) == [{POD: frozenset({80})}]
    assert scene.ports.left(POD) == set()


async def test_an_answer_to_an_earlier_publication_says_nothing() -> None:
    """Of a port that was left in between."""
    scene = Scene()
    scene.newly(80)
    early = scene.told[-1]
    scene.newly()
    scene.newly(80)
    assert scene.ports.settled(*early) == []
    assert scene.ports.unread(POD) == {80}
    assert scene.answer() == [POD]


async def test_one_that_is_read_again_is_told_again() -> None:
    """Meanwhile connections went past."""
    scene, read, left = Scene(), [{POD: frozenset({80})}], [{POD: frozenset[int]()}]
    assert [scene.newly(*ports) for ports in ((80,), (), (80,))] == [read, left, read]


async def test_the_next_agent_knows_what_was_read() -> None:
    assert Scene(read_ports={POD: [80]}).newly(80) == []
    assert Scene(read_ports={POD: [80]}).newly(80, 81) == [{POD: frozenset({81})}]


async def test_pods_that_go_are_forgotten() -> None:
    scene = Scene(read_ports={POD: [80]})
    scene.ports.forget(POD)
    assert scene.noted == {}
    assert scene.newly(80) == [{POD: frozenset({80})}]


async def test_tunnels_are_let_in_when_envoy_reads(tmp_path: Path) -> None:
    """By the listener that leads them to who reads; by one of before, never."""
    pod = cases.pod(WORKLOAD)
    agent = Agent(tmp_path / "state.sqlite")
    configuration = agent.configuration

    def denies(name: str) -> bool:
        return b"read_at_pod" in agent.server.store.resources(EXTENSION)[name].body

    client = cases.pod(cases.CLIENT)
    destination = names.destination(client.key, WORKLOAD.addresses[0], 8080)

    def is_refused() -> bool:
        return b"not read yet" in agent.server.store.resources(CLUSTER)[destination].body

    await agent.put(SERVER, cases.CLIENT)
    configuration.add(pod)
    configuration.add(client)
    configuration.asked([destination])
    assert not is_refused()
    await agent.put(WORKLOAD, READ, *VIEW.policies_for(WORKLOAD)[0])
    ports, publication = configuration.read_ports.published.get_nowait()
    assert ports == {pod.key: {8080}}
    assert denies(names.policy(pod.key)) and denies(names.policy_of_readers(pod.key))
    assert is_refused()
    assert configuration.reads(ports, publication) == []
    assert not is_refused()
    assert denies(names.policy(pod.key)) and not denies(names.policy_of_readers(pod.key))
    await agent.put(SERVER, msgspec.structs.replace(READ, inline=None, rules=None))
    assert not denies(names.policy(pod.key)) and not denies(names.policy_of_readers(pod.key))


async def test_who_was_read_meets_what_is_said_of_connections_from_then_on(tmp_path: Path) -> None:
    """Not before Envoy keeps others out: until then the rules of before hold."""
    agent = Agent(tmp_path / "state.sqlite")
    configuration, pod = agent.configuration, cases.pod(WORKLOAD)
    await agent.put(WORKLOAD, READ, *VIEW.policies_for(WORKLOAD)[0])
    configuration.add(pod)
    ports, publication = configuration.read_ports.published.get_nowait()
    configuration.reads(ports, publication)

    def said() -> bytes:
        body = agent.server.store.resources(EXTENSION)[names.allowed(names.pod_requests(pod.key), 8080)].body
        return bytes(body)

    before = said()
    guard = Authorization(
        "guard", "default", Scope.WORKLOAD_SELECTOR, Action.DENY, (ConnectionRule((Clause(()),)),)
    )
    guarded = msgspec.structs.replace(SERVER, policies=(guard.key,))
    await agent.put(guard, guarded, msgspec.structs.replace(READ, inline=None, rules=None))
    ports, publication = configuration.read_ports.published.get_nowait()
    assert said() == before
    assert configuration.reads(ports, publication) == []
    assert b"default/guard[0]" in said()
    assert said() != before


async def test_what_is_only_told_of_goes_to_who_reads_when_envoy_has_him(tmp_path: Path) -> None:
    """Meanwhile it goes on as before."""
    rules = InlineRules((RequestPolicy("a", "default", RequestAction.AUDIT, ()),))
    audited = msgspec.structs.replace(READ, rules=rules)
    pod, client = cases.pod(SERVER), cases.pod(cases.CLIENT)
    agent = Agent(tmp_path / "state.sqlite")
    configuration = agent.configuration
    destination = names.destination(client.key, SERVER.addresses[0], 8080)
    reader = names.service_cluster(names.pod_requests(pod.key), 8080).encode()

    def are_read() -> set[bool]:
        """Of tunnels, what comes in plain text, and clients of the node."""
        store = agent.server.store
        into = names.into_service(names.pod_requests(pod.key), 8080).encode()
        return {
            into in store.resources(ROUTES)[names.hbone_listener(pod.key)].body,
            read_chain(8080).encode() in store.resources(LISTENER)[names.plaintext_listener(pod.key)].body,
            reader in store.resources(CLUSTER)[destination].body,
        }

    await agent.put(SERVER, cases.CLIENT)
    configuration.add(pod)
    configuration.add(client)
    configuration.asked([destination])
    await agent.put(audited)
    assert configuration.read_ports.published.empty()
    ports, publication = configuration.told_ports.published.get_nowait()
    assert ports == {pod.key: {8080}}
    assert reader.decode() in agent.server.store.resources(LISTENER)
    assert are_read() == {False}
    configuration.tells(ports, publication)
    assert are_read() == {True}
    await agent.put(msgspec.structs.replace(READ, rules=None))
    assert are_read() == {False}


@pytest.mark.parametrize("is_own", [False, True])
async def test_what_envoy_refuses_of_others_keeps_no_pod_closed(tmp_path: Path, *, is_own: bool) -> None:
    pod, client = cases.pod(WORKLOAD), cases.pod(cases.CLIENT)
    agent = Agent(tmp_path / "state.sqlite")
    configuration = agent.configuration
    await agent.put(SERVER, cases.CLIENT)
    configuration.add(pod)
    configuration.add(client)
    others = names.destination(client.key, WORKLOAD.addresses[0], 8080)
    configuration.asked([others])
    await agent.put(WORKLOAD, READ, *VIEW.policies_for(WORKLOAD)[0])
    ports, publication = configuration.read_ports.published.get_nowait()
    type_url, name = (EXTENSION, names.policy_of_readers(pod.key)) if is_own else (CLUSTER, others)
    sent = agent.server.store.resources(type_url)[name]
    publication.rejected(Rejected(Response(type_url=type_url, nonce="1", resources=(sent,)), "bad"), agent)
    assert publication.refused == {(type_url, name)}
    assert configuration.reads(ports, publication) == ([pod.key] if is_own else [])
    assert configuration.read_ports.unread(pod.key) == ({8080} if is_own else set())
