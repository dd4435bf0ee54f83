"""Table answers: the columns kubectl prints."""

from ambit.local.apiserver.custom import CustomKinds
from ambit.local.apiserver.resources import Resource
from ambit.local.apiserver.store import Json


class Tables:
    """Renders objects as rows."""

    def __init__(self, custom: CustomKinds) -> None:
        self._custom = custom

    def table(self, resource: Resource, bodies: list[Json], include: str) -> Json:
        columns = [{"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}]
        rows = [
            {
                "cells": [body["metadata"]["name"]],
                "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": body["metadata"],
                },
            }
            for body in bodies
        ]
        return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": columns, "rows": rows}
