"""CEL rules of CRD schemas (`x-kubernetes-validations`): compiled once, evaluated beside the value they stand on.

1. A rule sees `self`, and `oldSelf` when it is a transition rule; those run only when an old value exists.
2. A rule that cannot be compiled is a problem to report (`problems`), never a silent pass.
3. A rule that fails while running refuses the object, as in Kubernetes.

The engine is loaded when the first rule is compiled (about 40 MB), not on import. Functions beyond standard CEL are
Kubernetes' libraries, as far as they are listed in `cel_library`.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from ambit.objects import cel_library
from ambit.objects.structural import Schema, field_schema
from ambit.objects.validation import Complaint, Reason, show

LONGEST = 10_000
"""Characters of an expression. The engine recurses over chains: 20,000 of `+1` or `.a` end the process."""

_RULES = "x-kubernetes-validations"
_REASONS: dict[str, Reason] = {
    "FieldValueInvalid": "FieldValueInvalid",
    "FieldValueRequired": "FieldValueRequired",
    "FieldValueDuplicate": "FieldValueDuplicate",
}


class Rule(msgspec.Struct, frozen=True):
    """One compiled rule. `program` and `message_program` are the engine's."""

    text: str
    program: Any
    transition: bool
    message: str
    message_program: Any
    reason: Reason
    field_path: str
    escaped: bool


class Rules:
    """All rules of one schema. `problems` lists rules that do not compile, with their place."""

    def __init__(self, schema: Schema) -> None:
        self.problems: list[str] = []
        self._schema = schema
        self._rules: dict[int, list[Rule]] = {}
        self._busy: dict[int, int] = {}
        self._prepare(schema, "")

    def _prepare(self, schema: Schema, path: str) -> int:
        """Compiles the rules below a node: 0 when there are none, 2 when there are transition rules, else 1."""
        found = [rule for one in schema.get(_RULES) or () if (rule := self._compile(one, path))]
        if found:
            self._rules[id(schema)] = found
        busy = max((2 if rule.transition else 1 for rule in found), default=0)
        for name, member in schema.get("properties", {}).items():
            busy = max(busy, self._prepare(member, f"{path}.{name}"))
        for key in ("items", "additionalProperties"):
            if isinstance(schema.get(key), dict):
                busy = max(busy, self._prepare(schema[key], f"{path}[*]"))
        self._busy[id(schema)] = busy
        return busy

    def _compile(self, declared: Any, path: str) -> Rule | None:
        # Not `from cel`: the xds-protos distribution puts an empty file over that package's __init__.
        from cel.cel import compile as compile_rule

        text = declared.get("rule", "")
        expression = declared.get("messageExpression")
        try:
            if max(len(text), len(expression or "")) > LONGEST:
                raise ValueError(f"it is longer than {LONGEST} characters")  # noqa: TRY301
            program = compile_rule(text)
            unknown = cel_library.unknown_functions(program.functions())
            if unknown:
                raise ValueError(f"undeclared reference to {', '.join(unknown)}")  # noqa: TRY301
            message_program = compile_rule(expression) if expression else None
        except ValueError as error:
            self.problems.append(
                f"{path.lstrip('.') or 'the object'}: rule {show(text)} does not compile: {error}"
            )
            return None
        return Rule(
            text=text,
            program=program,
            transition="oldSelf" in program.variables(),
            message=(declared.get("message") or "").strip() or f"failed rule: {text.strip()}",
            message_program=message_program,
            reason=_REASONS.get(declared.get("reason", ""), "FieldValueInvalid"),
            field_path=declared.get("fieldPath", ""),
            escaped="__" in text,
        )

    def validate(self, body: Any, old: Any | None) -> list[Complaint]:
        """Complaints of all rules that do not hold, but none about parts that are as they were in `old`."""
        return list(self._walk(self._schema, body, old, ""))

    def _walk(self, schema: Schema, value: Any, old: Any, path: str) -> Iterator[Complaint]:
        busy = self._busy.get(id(schema), 0)
        same = old is not None and value == old
        if value is None or not busy or (same and busy == 1):
            return
        for rule in self._rules.get(id(schema), ()):
            if same and not rule.transition:
                continue
            if complaint := _evaluate(rule, value, old, path):
                yield complaint
        if isinstance(value, dict):
            for name, item in value.items():
                member = field_schema(schema, name)
                if member is not None:
                    before = old.get(name) if isinstance(old, dict) else None
                    yield from self._walk(member, item, before, f"{path}.{name}" if path else name)
        elif isinstance(value, list) and "items" in schema:
            for index, item in enumerate(value):
                before = _old_item(schema, item, old)
                yield from self._walk(schema["items"], item, before, f"{path}[{index}]")


def _old_item(schema: Schema, item: Any, old: Any) -> Any:
    """The old counterpart of an item: only keyed lists have one."""
    keys = schema.get("x-kubernetes-list-map-keys")
    if not keys or not isinstance(old, list) or not isinstance(item, dict):
        return None
    same = (one for one in old if all(one.get(key) == item.get(key) for key in keys))
    return next(same, None)


def _evaluate(rule: Rule, value: Any, old: Any, path: str) -> Complaint | None:
    if rule.transition and old is None:
        return None
    variables = {"self": _escape(value) if rule.escaped else value, "format": "format"}
    if rule.transition:
        variables["oldSelf"] = _escape(old) if rule.escaped else old
    context = cel_library.context(variables)
    where = f"{path}{rule.field_path}" if path else rule.field_path.lstrip(".")
    try:
        holds = rule.program.execute(context)
    except Exception as error:  # noqa: BLE001 - the engine raises many kinds; each refuses the object
        text = f"{rule.message} (the rule could not be evaluated: {error})"
        return ("FieldValueInvalid", f"Invalid value: {_shown(value)}: {text}", where)
    if holds is True:
        return None
    message = _message(rule, context)
    if rule.reason == "FieldValueRequired":
        return (rule.reason, f"Required value: {message}", where)
    word = "Duplicate" if rule.reason == "FieldValueDuplicate" else "Invalid"
    return (rule.reason, f"{word} value: {_shown(value)}: {message}", where)


def _message(rule: Rule, context: Any) -> str:
    if rule.message_program is None:
        return rule.message
    try:
        found = rule.message_program.execute(context)
    except Exception:  # noqa: BLE001 - falls back to the fixed message, as in Kubernetes
        return rule.message
    return found.strip() if isinstance(found, str) and found.strip() else rule.message


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return '"object"'
    return '"array"' if isinstance(value, list) else show(value)


def _escape(value: Any) -> Any:
    """Members under the names CEL can spell: `a-b` becomes `a__dash__b` (Kubernetes property escaping)."""
    if isinstance(value, list):
        return [_escape(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {_escape_name(name): _escape(item) for name, item in value.items()}


def _escape_name(name: str) -> str:
    if name in _RESERVED:
        return f"__{name}__"
    name = name.replace("__", "__underscores__")
    for word, char in (("dash", "-"), ("dot", "."), ("slash", "/")):
        name = name.replace(char, f"__{word}__")
    return name


_RESERVED = frozenset(
    [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)
