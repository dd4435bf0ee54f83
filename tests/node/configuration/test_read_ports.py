"""Which ports have come to be read, and what is written down of it."""

import json

from ambit.agent.publication import Publication
from ambit.node.configuration.read_ports import ReadPorts

POD = "shop/web-0/sandbox"


class Scene:
    def __init__(self, **noted: object) -> None:
        self.kept = {key.replace("_", "-"): json.dumps(each).encode() for key, each in noted.items()}
        self.ports = ReadPorts(self.kept.__setitem__, self.kept.get)

    def newly(self, *ports: int) -> list[dict[str, frozenset[int]]]:
        """What is told when these are read."""
        self.ports.look(POD, frozenset(ports))
        self.ports.sent(Publication({}, {}))
        found = []
        while not self.ports.published.empty():
            found.append(self.ports.published.get_nowait()[0])
        return found

    @property
    def noted(self) -> object:
        return json.loads(self.kept.get("read-ports", b"null"))


async def test_each_is_told_once() -> None:
    scene = Scene()
    assert scene.newly() == []
    assert scene.newly(80) == [{POD: frozenset({80})}]
    assert scene.newly(80) == []
    assert scene.newly(80, 81) == [{POD: frozenset({81})}]
    assert scene.noted == {POD: [80, 81]}


async def test_one_that_is_read_again_is_told_again() -> None:
    """Meanwhile connections went past."""
    scene, read = Scene(), [{POD: frozenset({80})}]
    assert [scene.newly(*ports) for ports in ((80,), (), (80,))] == [read, [], read]


async def test_the_next_agent_knows_what_was_read() -> None:
    assert Scene(read_ports={POD: [80]}).newly(80) == []
    assert Scene(read_ports={POD: [80]}).newly(80, 81) == [{POD: frozenset({81})}]


async def test_pods_that_go_are_forgotten() -> None:
    scene = Scene(read_ports={POD: [80]})
    scene.ports.forget(POD)
    assert scene.noted == {}
    assert scene.newly(80) == [{POD: frozenset({80})}]
