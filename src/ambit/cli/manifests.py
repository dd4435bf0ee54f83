"""Files of API objects: YAML with several documents, JSON, folders of both, standard input."""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ambit.core.errors import BadInput

_ENDINGS = {".yaml", ".yml", ".json"}
_TEXTS = {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool"}


def read_manifests(files: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Each document that is not empty, with where it is from. Raises BadInput naming the file."""
    for file in files:
        for name, text in _texts(file):
            yield from _documents(name, text)


def _texts(file: str) -> Iterator[tuple[str, str]]:
    if file == "-":
        yield "standard input", sys.stdin.read()
        return
    path = Path(file)
    try:
        inside = (
            sorted(each for each in path.rglob("*") if each.suffix in _ENDINGS) if path.is_dir() else [path]
        )
        if not inside:
            raise BadInput(f"{file} has no file that ends in {', '.join(sorted(_ENDINGS))}")
        for each in inside:
            yield str(each), each.read_text()
    except (OSError, UnicodeDecodeError) as problem:
        raise BadInput(f"{file} cannot be read: {problem}") from problem


def _documents(name: str, text: str) -> Iterator[tuple[str, Any]]:
    import yaml

    class Loader(yaml.CSafeLoader):
        """As Kubernetes reads it: times stay texts, and only true and false are booleans."""

    Loader.yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] not in _TEXTS]
        for first, pairs in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
    )
    try:
        for index, value in enumerate(yaml.load_all(text, Loader)):
            if value is not None:
                yield f"{name}, document {index + 1}", value
    except yaml.YAMLError as problem:
        raise BadInput(f"{name} is no YAML: {_where(problem)}") from problem


def _where(problem: Any) -> str:
    """The parser's words in one line, without the name that it gives to texts."""
    return " ".join(str(problem).split()).replace(' in "<unicode string>",', " at")
