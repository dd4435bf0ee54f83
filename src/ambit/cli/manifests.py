"""Files of API objects: YAML with several documents, JSON, folders of both, standard input."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ambit.core.errors import BadInput

_ENDINGS = {".yaml", ".yml", ".json"}


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
    except OSError as problem:
        raise BadInput(f"{problem.filename or file} cannot be read: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise BadInput(f"{file} cannot be read: {problem}") from problem


def _documents(name: str, text: str) -> Iterator[tuple[str, Any]]:
    from ambit.objects.documents import Malformed, read_documents

    try:
        for index, document in enumerate(read_documents(text)):
            where = f"{name}, document {index + 1}"
            for each in document.duplicates:
                raise BadInput(
                    f"{where}, line {each.line}: {each.path} is given twice",
                    "Keep one: of two, all but the last would be ignored.",
                )
            if document.value is not None:
                yield where, document.value
    except Malformed as problem:
        raise BadInput(f"{name} is no YAML: {problem}") from problem
