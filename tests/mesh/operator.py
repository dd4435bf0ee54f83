"""A kopf operator as people write them: a ConfigMap for each Greeting, and a status that says so. Run by `kopf run`."""

from typing import Any

import kopf
from lightkube.core.client import Client
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap


@kopf.on.create("tests.ambit.io", "v1", "greetings")
@kopf.on.update("tests.ambit.io", "v1", "greetings")
def greet(
    body: kopf.Body, spec: kopf.Spec, name: str | None, namespace: str | None, **_: Any
) -> dict[str, str]:
    assert name is not None
    owned = ConfigMap(
        metadata=ObjectMeta(name=name, namespace=namespace), data={"text": spec["text"].upper()}
    )
    values = owned.to_dict()
    kopf.adopt(values)
    adopted: Any = ConfigMap.from_dict(values)
    Client(field_manager="greeter").apply(adopted, force=True)
    kopf.info(body, reason="Greeted", message=f"said {spec['text']}")
    return {"text": spec["text"]}


@kopf.on.delete("tests.ambit.io", "v1", "greetings")
def part(logger: kopf.Logger, **_: Any) -> None:
    logger.info("goodbye")
