"""Other people's client libraries against the mesh's API server: a kopf operator and a lightkube script, unchanged."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.client import Client
from lightkube.core.exceptions import ApiError
from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Pod
from lightkube.types import PatchType

from ambit.testing.mesh import Mesh

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

GREETINGS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: greetings.tests.ambit.io}
spec:
  group: tests.ambit.io
  names: {kind: Greeting, plural: greetings, singular: greeting}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns: [{name: Text, type: string, jsonPath: .spec.text}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [text]
            properties: {text: {type: string, minLength: 2}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""

GREETING = """
apiVersion: tests.ambit.io/v1
kind: Greeting
metadata: {name: hello}
spec: {text: %s}
"""


@pytest.fixture
def operator(mesh: Mesh, namespace: str, tmp_path: Path) -> Iterator[str]:
    """The operator watches one namespace, which is given."""
    mesh.kubectl("apply", "-f", "-", stdin=GREETINGS)
    mesh.kubectl("wait", "--for=condition=Established", "crd/greetings.tests.ambit.io", "--timeout=110s")
    program = Path(__file__).with_name("operator.py")
    log = tmp_path / "operator.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "kopf", "run", "--namespace", namespace, "--standalone", program],
            env={**os.environ, "KUBECONFIG": str(mesh.kubeconfig)},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            yield namespace
        finally:
            process.terminate()
            process.wait(60)
            mesh.kubectl("delete", "crd", "greetings.tests.ambit.io", "--wait=false")
            print(log.read_text())  # noqa: T201 - shown by pytest when the test fails


def test_a_kopf_operator_does_its_work(mesh: Mesh, operator: str) -> None:
    def text() -> str:
        path = "jsonpath={.data.text}"
        return mesh.kubectl("get", "configmap", "hello", "-n", operator, "-o", path, check=False).stdout

    mesh.kubectl("apply", "-n", operator, "-f", "-", stdin=GREETING % "hello")
    mesh.wait("the operator has made its ConfigMap", lambda: text() == "HELLO")
    mesh.kubectl("apply", "-n", operator, "-f", "-", stdin=GREETING % "welcome")
    mesh.wait("the operator has followed the change", lambda: text() == "WELCOME")

    greeting = json.loads(mesh.kubectl("get", "greeting", "hello", "-n", operator, "-o", "json").stdout)
    assert greeting["metadata"]["finalizers"]
    mesh.wait(
        "the operator has written its status",
        lambda: (
            mesh.kubectl(
                "get", "greeting", "hello", "-n", operator, "-o", "jsonpath={.status.greet.text}"
            ).stdout
            == "welcome"
        ),
    )
    mesh.kubectl("delete", "greeting", "hello", "-n", operator, "--timeout=110s")
    mesh.wait("what it owned is collected", lambda: text() == "")
    mesh.wait(
        "its event is there",
        lambda: "said welcome" in mesh.kubectl("get", "events", "-n", operator).stdout,
    )


@pytest.fixture
def lightkube(mesh: Mesh, namespace: str) -> Client:
    config = KubeConfig.from_file(mesh.kubeconfig).get()
    return Client(config=config, namespace=namespace, field_manager="script")


def test_a_lightkube_script_does_its_work(lightkube: Client) -> None:
    labels = {"app": "web"}
    container = Container(name="web", image="busybox:1", command=["sleep", "3600"])
    template = PodTemplateSpec(
        metadata=ObjectMeta(labels=labels),
        spec=PodSpec(containers=[container], terminationGracePeriodSeconds=0),
    )
    deployment = Deployment(
        metadata=ObjectMeta(name="web"),
        spec=DeploymentSpec(replicas=1, selector=LabelSelector(matchLabels=labels), template=template),
    )
    created = lightkube.create(deployment)
    assert created.metadata is not None and created.metadata.uid
    lightkube.wait(Deployment, "web", for_conditions=["Available"])
    [pod] = lightkube.list(Pod, labels=labels)  # type: ignore[type-var]  # its types say `name` where it has none
    assert pod.status is not None and pod.status.phase == "Running"

    lightkube.patch(Deployment, "web", {"spec": {"replicas": 2}}, patch_type=PatchType.MERGE)
    for _, each in lightkube.watch(Deployment, fields={"metadata.name": "web"}, server_timeout=110):
        if each.status is not None and each.status.readyReplicas == 2:
            break
    else:
        pytest.fail("the second replica never became ready")

    applied = lightkube.apply(ConfigMap(metadata=ObjectMeta(name="settings"), data={"a": "1"}))
    replaced = lightkube.apply(ConfigMap(metadata=ObjectMeta(name="settings"), data={"b": "2"}))
    assert (applied.data, replaced.data) == ({"a": "1"}, {"b": "2"})

    lightkube.delete(Deployment, "web")
    with pytest.raises(ApiError) as missing:
        lightkube.get(ConfigMap, "nothing")
    assert missing.value.status.code == 404
    assert missing.value.status.reason == "NotFound"
