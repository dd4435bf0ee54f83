"""Which pod a ReplicaSet gives up first."""

from typing import Any

import pytest

from ambit.local.controllers.objects import timestamp
from ambit.local.controllers.pods import DELETION_COST, deletion_order, is_available, pod_from_template

Object = dict[str, Any]


def pod(
    node: str = "node1",
    phase: str = "Running",
    ready_at: int = 100,
    born: int = 50,
    restarts: int = 0,
    cost: str = "",
) -> Object:
    ready = {"type": "Ready", "status": "True" if ready_at else "False"}
    if ready_at:
        ready["lastTransitionTime"] = timestamp(ready_at)
    annotations = {DELETION_COST: cost} if cost else {}
    return {
        "metadata": {"name": "p", "creationTimestamp": timestamp(born), "annotations": annotations},
        "spec": {"nodeName": node},
        "status": {"phase": phase, "conditions": [ready], "containerStatuses": [{"restartCount": restarts}]},
    }


@pytest.mark.parametrize(
    ("sooner", "later"),
    [
        (pod(node=""), pod(phase="Pending", ready_at=0)),
        (pod(phase="Pending"), pod(ready_at=0)),
        (pod(ready_at=0), pod(cost="-5")),
        (pod(cost="-5"), pod()),
        (pod(), pod(cost="5")),
        (pod(ready_at=200), pod(ready_at=100)),
        (pod(restarts=3), pod(restarts=1)),
        (pod(born=60), pod(born=50)),
    ],
)
def test_the_least_loss_goes_first(sooner: Object, later: Object) -> None:
    assert deletion_order(sooner) < deletion_order(later)


def test_availability_takes_its_time() -> None:
    assert is_available(pod(), 0, 100)
    assert not is_available(pod(), 10, 109)
    assert is_available(pod(), 10, 110)
    assert not is_available(pod(ready_at=0), 0, 999)


def test_a_pod_does_not_share_state_with_its_template() -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}
    made = pod_from_template(template, "default", {"uid": "u"}, prefix="web-")
    made["metadata"]["labels"]["a"] = "changed"
    made["spec"]["containers"][0]["name"] = "changed"
    assert template == {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}
    assert made["metadata"]["generateName"] == "web-"
