import pytest

from ambit.core.enrolment import is_enrolled, objection

LABEL = "istio.io/dataplane-mode"


@pytest.mark.parametrize(
    ("namespace", "pod", "enrolled"),
    [
        (None, None, False),
        ("ambient", None, True),
        ("ambient", "none", False),
        (None, "ambient", True),
        ("none", "ambient", True),
        (None, "none", False),
        ("sidecar", None, False),
    ],
)
def test_the_pods_label_wins(namespace: str | None, pod: str | None, enrolled: bool) -> None:
    namespace_labels = {LABEL: namespace} if namespace else {}
    pod_labels = {LABEL: pod} if pod else {}
    assert is_enrolled(namespace_labels, pod_labels, {}) is enrolled
    assert not is_enrolled(namespace_labels, pod_labels, {}, host_network=True)
    assert not is_enrolled(namespace_labels, pod_labels, {"sidecar.istio.io/status": ""})


def test_what_is_against_it_has_a_name() -> None:
    sidecar = {"sidecar.istio.io/status": ""}
    excluded = {"kube-system"}
    assert objection("shop", {}, excluded=excluded) == ""
    assert (
        objection("kube-system", {}, excluded=excluded) == "namespace kube-system is excluded from the mesh"
    )
    assert objection("shop", {}, host_network=True) == "the pod is in the host's network"
    assert objection("shop", sidecar) == "the pod has a sidecar"
