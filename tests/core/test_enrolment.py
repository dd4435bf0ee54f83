import pytest

from ambit.core.enrolment import is_enrolled

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
