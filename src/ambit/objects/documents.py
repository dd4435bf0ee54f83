"""YAML and JSON that others wrote, to plain values: bounded while it is read, never after it was built. Pure.

1. Deeper than `DEPTH` is refused, with the line: parsers, encoders and everything that walks an object recurse.
2. Aliases are copies. One that is inside what it refers to, and more than `ALIASED` values out of aliases, are refused.
3. As Kubernetes reads YAML: times stay texts, only true and false are booleans, keys are texts, `<<` merges.
4. A key that is given twice is told (the last one counts, as in JSON): what it hides may be the rule that denies.
"""

import contextlib
import copy
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import yaml

DEPTH = 100
"""Levels of mappings and sequences. A CRD of Kubernetes' own pod template has about 40."""

ALIASED = 100_000
"""Values of one document that may come out of aliases."""

_TAG = "tag:yaml.org,2002:"
_TEXTS = {f"{_TAG}timestamp", f"{_TAG}bool"}
_MERGE = object()
_EMPTY = object()


class Malformed(ValueError):
    """The text is no document that can be taken; one sentence, with the line where there is one."""


class Duplicate(msgspec.Struct, frozen=True):
    """A key that a mapping has twice: where (`spec.rules[0].from`), and the line of the second, 0 if unknown."""

    key: str
    path: str
    line: int = 0


class Document(msgspec.Struct, frozen=True):
    """One value, and what it hides."""

    value: Any
    duplicates: tuple[Duplicate, ...] = ()


class _Loader(yaml.CSafeLoader):
    """Parses, and knows what a plain scalar is."""


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] not in _TEXTS]
    for first, pairs in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    f"{_TAG}bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


class _Open:
    """A mapping or sequence whose end has not come."""

    def __init__(self, value: Any, anchor: str | None) -> None:
        self.value = value
        self.anchor = anchor
        self.key: Any = _EMPTY
        self.merged: list[dict[str, Any]] = []
        self.count = 1
        self.height = 0


class _Known(msgspec.Struct, frozen=True):
    """What an anchor stands for: `count` values, `height` levels below it."""

    value: Any
    count: int
    height: int


def too_deep(value: Any, above: int = 0) -> bool:
    """Whether a value has more than `DEPTH` levels, when it is to stand `above` levels down."""
    level = [value]
    for _ in range(DEPTH - above):
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return any(isinstance(each, dict | list) for each in level)


def read_documents(text: str) -> Iterator[Document]:
    """Each document of a YAML or JSON text. Raises Malformed."""
    if text.lstrip()[:1] in {"{", "["}:
        # What JSON's parser has to say about it, YAML's says with a line.
        with contextlib.suppress(ValueError, RecursionError):
            value, duplicates = _read_json(text)
            if not duplicates and not too_deep(value):
                yield Document(value)
                return
    yield from read_yaml(text)


def read_value(text: str) -> Any:
    """The value of the first document, None when there is none. Raises Malformed."""
    return next(read_yaml(text), Document(None)).value


def json_duplicates(text: str | bytes) -> tuple[Duplicate, ...]:
    """The keys that objects of a JSON text have twice. Raises ValueError, and RecursionError for deep ones."""
    return _read_json(text, parse_int=str)[1]


def _read_json(text: str | bytes, **parsers: Any) -> tuple[Any, tuple[Duplicate, ...]]:
    twice: dict[int, list[str]] = {}
    kept = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            counted = Counter(name for name, _ in pairs)
            twice[id(value)] = [name for name, count in counted.items() if count > 1]
            kept.append(value)
        return value

    root = json.loads(text, object_pairs_hook=note, **parsers)
    found = []
    left: list[tuple[Any, str]] = [(root, "")] if twice else []
    while left:
        value, path = left.pop()
        if isinstance(value, dict):
            found += [Duplicate(name, _below(path, name)) for name in twice.pop(id(value), ())]
            left += [(child, _below(path, name)) for name, child in value.items()]
        elif isinstance(value, list):
            left += [(child, f"{path}[{index}]") for index, child in enumerate(value)]
    # What is left is inside a value that a second key has hidden.
    return root, tuple(sorted(found, key=lambda each: each.path))


def read_yaml(text: str | bytes) -> Iterator[Document]:
    """Each document of a YAML text. Raises Malformed."""
    try:
        loader = _Loader(text)
        while not isinstance(event := loader.get_event(), yaml.StreamEndEvent):
            if isinstance(event, yaml.DocumentStartEvent):
                yield _Builder(loader).document()
    except yaml.YAMLError as problem:
        raise Malformed(_sentence(problem)) from problem
    except (UnicodeError, RecursionError) as problem:
        raise Malformed(str(problem)) from problem


class _Builder:
    """Makes one document's value out of the parser's events, without recursion."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._open: list[_Open] = []
        self._anchors: dict[str, _Known | None] = {}
        self._aliased = 0
        self._duplicates: list[Duplicate] = []
        self._root: Any = None

    def document(self) -> Document:
        while not isinstance(event := self._loader.get_event(), yaml.DocumentEndEvent):
            if isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._start(event)
            else:
                self._end(event)
        return Document(self._root, tuple(self._duplicates))

    def _alias(self, event: Any) -> None:
        if event.anchor not in self._anchors:
            raise _at(event, f"*{event.anchor} has no anchor before it")
        known = self._anchors[event.anchor]
        if known is None:
            raise _at(event, f"*{event.anchor} is inside what it refers to")
        self._aliased += known.count
        if self._aliased > ALIASED:
            raise _at(event, f"aliases come to more than {ALIASED} values")
        if len(self._open) + known.height > DEPTH:
            raise _at(event, f"nested deeper than {DEPTH} levels")
        self._add(event, copy.deepcopy(known.value), known.count, known.height)

    def _scalar(self, event: Any) -> None:
        tag = event.tag
        if tag is None or tag == "!":
            tag = self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)
        into = self._open[-1] if self._open else None
        if tag == f"{_TAG}merge" and into and isinstance(into.value, dict) and into.key is _EMPTY:
            into.key = _MERGE
            return
        value = self._plain(event, tag)
        if event.anchor:
            self._anchors[event.anchor] = _Known(value, 1, 0)
        self._add(event, value, 1, 0)

    def _plain(self, event: Any, tag: str) -> Any:
        node = yaml.ScalarNode(tag, event.value, event.start_mark, event.end_mark)
        try:
            match tag.removeprefix(_TAG):
                case "str" | "timestamp" | "merge" | "value":
                    return event.value
                case "null":
                    return None
                case "bool":
                    return self._loader.construct_yaml_bool(node)
                case "float":
                    return self._loader.construct_yaml_float(node)
                case "int":
                    number = self._loader.construct_yaml_int(node)
                    return number if -(1 << 63) <= number < 1 << 64 else float(number)
                case _:
                    raise _at(event, f"the tag {tag} is not known")
        except Malformed:
            raise
        except (ValueError, KeyError, IndexError, OverflowError) as problem:
            raise _at(event, f"{event.value[:40]!r} is not a value of {tag}") from problem

    def _start(self, event: Any) -> None:
        mapping = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in {None, "!", f"{_TAG}map" if mapping else f"{_TAG}seq"}:
            raise _at(event, f"the tag {event.tag} is not known")
        if len(self._open) >= DEPTH:
            raise _at(event, f"nested deeper than {DEPTH} levels")
        above = self._open[-1] if self._open else None
        if above and isinstance(above.value, dict) and above.key is _EMPTY:
            raise _at(event, "a key must be a text")
        if event.anchor:
            self._anchors[event.anchor] = None
        self._open.append(_Open({} if mapping else [], event.anchor))

    def _end(self, event: Any) -> None:
        done = self._open.pop()
        for each in done.merged:
            for key, value in each.items():
                done.value.setdefault(key, value)
        if done.anchor:
            self._anchors[done.anchor] = _Known(done.value, done.count, done.height + 1)
        self._add(event, done.value, done.count, done.height + 1)

    def _add(self, event: Any, value: Any, count: int, height: int) -> None:
        if not self._open:
            self._root = value
            return
        into = self._open[-1]
        into.count += count
        into.height = max(into.height, height)
        if isinstance(into.value, list):
            into.value.append(value)
        elif into.key is _EMPTY:
            into.key = self._key(event, value)
            if into.key in into.value:
                self._duplicates.append(Duplicate(into.key, self._path(), event.start_mark.line + 1))
        elif into.key is _MERGE:
            into.key = _EMPTY
            several = value if isinstance(value, list) else [value]
            if not all(isinstance(each, dict) for each in several):
                raise _at(event, "`<<` takes a mapping, or a sequence of them")
            into.merged += several
        else:
            into.value[into.key] = value
            into.key = _EMPTY

    def _key(self, event: Any, value: Any) -> str:
        if value is None or isinstance(value, dict | list):
            raise _at(event, "a key must be a text")
        return str(value).lower() if isinstance(value, bool) else str(value)

    def _path(self) -> str:
        path = ""
        for each in self._open:
            if isinstance(each.value, list):
                path += f"[{len(each.value)}]"
            elif each.key is not _MERGE:
                path = _below(path, each.key)
        return path


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _at(event: Any, what: str) -> Malformed:
    return Malformed(f"line {event.start_mark.line + 1}: {what}")


def _sentence(problem: yaml.YAMLError) -> str:
    """The parser's words in one line, without the name that it gives to texts."""
    return re.sub(r' in "<[^"]*>",', " at", " ".join(str(problem).split()))
