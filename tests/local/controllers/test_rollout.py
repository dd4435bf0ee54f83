"""Deployment rollouts: the plan's rules, by simulating ReplicaSets and pods."""

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ambit.local.controllers.objects import condition_of
from ambit.local.controllers.rollout import REVISION, Adjust, Create, Remove, plan_rollout

Object = dict[str, Any]
NOW = 1_800_000_000.0


def deployment(replicas: int, image: str = "a", **spec: Any) -> Object:
    return {
        "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
            **spec,
        },
    }


def rolling(surge: Any, unavailable: Any) -> Object:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}


class World:
    """A Deployment, its ReplicaSets, and how many of each one's pods are available."""

    def __init__(self, value: Object) -> None:
        self.deployment = value
        self.sets: dict[str, Object] = {}
        self.clock = NOW
        self.born = 0

    def step(self) -> bool:
        """Carry out one plan; whether it did anything."""
        running = any(
            item["status"]["replicas"]
            for item in self.sets.values()
            if item["spec"]["template"]["spec"] != self.deployment["spec"]["template"]["spec"]
        )
        plan = plan_rollout(
            self.deployment, list(self.sets.values()), old_pods_running=running, now=self.clock
        )
        if plan.revision:
            self.deployment["metadata"].setdefault("annotations", {})[REVISION] = plan.revision
        for action in plan.actions:
            match action:
                case Create(value):
                    self.born += 1
                    value = copy.deepcopy(value)
                    value["metadata"]["creationTimestamp"] = f"2026-01-01T00:00:{self.born:02}Z"
                    value["status"] = {"replicas": 0, "availableReplicas": 0, "readyReplicas": 0}
                    assert value["metadata"]["name"] not in self.sets
                    self.sets[value["metadata"]["name"]] = value
                case Adjust(name, replicas, annotations, before):
                    assert self.sets[name]["spec"]["replicas"] == before
                    self.sets[name]["spec"]["replicas"] = replicas
                    self.sets[name]["metadata"]["annotations"] = annotations
                case Remove(name):
                    assert not self.sets[name]["status"]["replicas"]
                    del self.sets[name]
        changed = bool(plan.actions) or self.deployment.get("status") != plan.status
        self.deployment["status"] = plan.status
        return changed

    def run_pods(self, ready: bool = True, only: str | None = None) -> bool:
        changed = False
        for name, item in self.sets.items():
            if only is not None and name != only:
                continue
            size, status = item["spec"]["replicas"], item["status"]
            available = size if ready else min(size, status["availableReplicas"])
            new = {"replicas": size, "availableReplicas": available, "readyReplicas": available}
            changed |= new != status
            item["status"] = new
        return changed

    def settle(self) -> None:
        for _ in range(200):
            moved = self.step()
            if not (self.run_pods() or moved):
                return
        raise AssertionError("never settles")

    def sizes(self) -> dict[str, int]:
        return {
            item["spec"]["template"]["spec"]["containers"][0]["image"]: item["spec"]["replicas"]
            for item in self.sets.values()
        }

    def set_image(self, image: str) -> None:
        self.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = image
        self.deployment["metadata"]["generation"] += 1


def progressing(world: World) -> str:
    return str((condition_of(world.deployment, "Progressing") or {})["reason"])


def test_the_first_rollout_completes() -> None:
    world = World(deployment(3))
    world.settle()
    status = world.deployment["status"]
    assert world.sizes() == {"a": 3}
    assert (status["replicas"], status["updatedReplicas"], status["availableReplicas"]) == (3, 3, 3)
    assert "unavailableReplicas" not in status
    assert progressing(world) == "NewReplicaSetAvailable"
    assert world.deployment["metadata"]["annotations"][REVISION] == "1"


def test_undo_brings_back_the_old_set_with_a_new_revision() -> None:
    world = World(deployment(2))
    world.settle()
    world.set_image("b")
    world.settle()
    assert world.sizes() == {"a": 0, "b": 2}
    world.set_image("a")
    world.settle()
    assert world.sizes() == {"a": 2, "b": 0}
    assert world.deployment["metadata"]["annotations"][REVISION] == "3"


def test_a_broken_template_stops_at_the_floor_and_times_out() -> None:
    world = World(deployment(4, strategy=rolling("25%", "25%"), progressDeadlineSeconds=60))
    world.settle()
    world.set_image("broken")
    for _ in range(20):
        world.step()
        world.run_pods(ready=False)
    assert world.sizes() == {"a": 3, "broken": 2}
    assert progressing(world) == "ReplicaSetUpdated"
    world.clock += 61
    world.step()
    assert progressing(world) == "ProgressDeadlineExceeded"
    assert (condition_of(world.deployment, "Available") or {})["status"] == "True"


def test_recreate_starts_new_pods_only_after_the_old_ended() -> None:
    world = World(deployment(2, strategy={"type": "Recreate"}))
    world.settle()
    world.set_image("b")
    world.step()
    assert world.sizes() == {"a": 0}
    world.step()
    assert world.sizes() == {"a": 0}
    world.settle()
    assert world.sizes() == {"a": 0, "b": 2}


def test_paused_does_not_roll_but_scales() -> None:
    world = World(deployment(2))
    world.settle()
    world.deployment["spec"]["paused"] = True
    world.set_image("b")
    world.settle()
    assert world.sizes() == {"a": 2}
    world.deployment["spec"]["replicas"] = 5
    world.settle()
    assert world.sizes() == {"a": 5}
    assert progressing(world) == "DeploymentPaused"
    world.deployment["spec"]["paused"] = False
    world.settle()
    assert world.sizes() == {"a": 0, "b": 5}


def test_history_is_limited_to_the_newest_revisions() -> None:
    world = World(deployment(1, revisionHistoryLimit=2))
    for image in "abcde":
        world.set_image(image)
        world.settle()
    assert world.sizes() == {"c": 0, "d": 0, "e": 1}


def test_a_lost_pod_after_completion_is_no_rollout() -> None:
    world = World(deployment(2))
    world.settle()
    (item,) = world.sets.values()
    item["status"]["availableReplicas"] = 1
    world.step()
    world.clock += 10_000
    world.step()
    assert progressing(world) == "NewReplicaSetAvailable"


@settings(max_examples=150, deadline=None)
@given(
    replicas=st.integers(0, 8),
    surge=st.one_of(st.integers(0, 4), st.sampled_from(["0%", "25%", "100%"])),
    unavailable=st.one_of(st.integers(0, 4), st.sampled_from(["0%", "25%", "50%"])),
    changes=st.lists(
        st.one_of(
            st.tuples(st.just("image"), st.sampled_from("abc")),
            st.tuples(st.just("scale"), st.integers(0, 8)),
            st.tuples(st.just("steps"), st.integers(1, 3)),
        ),
        max_size=6,
    ),
)
def test_every_history_settles_at_the_wanted_state(
    replicas: int, surge: Any, unavailable: Any, changes: list[tuple[str, Any]]
) -> None:
    world = World(deployment(replicas, strategy=rolling(surge, unavailable)))
    for what, value in changes:
        if what == "image":
            world.set_image(value)
        elif what == "scale":
            world.deployment["spec"]["replicas"] = value
        else:
            for _ in range(value):
                world.step()
                world.run_pods()
    world.settle()
    image = world.deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    wanted = world.deployment["spec"]["replicas"]
    assert {key: size for key, size in world.sizes().items() if size} == ({image: wanted} if wanted else {})
    assert not world.step()


@settings(max_examples=100, deadline=None)
@given(
    replicas=st.integers(1, 10),
    surge=st.integers(0, 4),
    unavailable=st.integers(0, 4),
    readiness=st.lists(st.booleans(), max_size=30),
)
def test_a_rollout_keeps_within_surge_and_unavailable(
    replicas: int, surge: int, unavailable: int, readiness: list[bool]
) -> None:
    """Rule 2."""
    world = World(deployment(replicas, strategy=rolling(surge, unavailable)))
    world.settle()
    world.set_image("b")
    allowed = 1 if surge == unavailable == 0 else unavailable
    for ready in readiness:
        world.step()
        sizes = world.sizes()
        assert sum(sizes.values()) <= replicas + surge
        available = sum(
            min(item["status"]["availableReplicas"], item["spec"]["replicas"]) for item in world.sets.values()
        )
        assert available >= replicas - allowed
        world.run_pods(ready=ready)
