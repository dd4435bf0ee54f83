"""Tables of nftables as text: exactly as nft prints them, so that what is in the kernel can be compared with it."""

from collections.abc import Iterable


def table(name: str, comment: str, parts: Iterable[str]) -> str:
    """An inet table of these sets, counters and chains."""
    return f'table inet {name} {{\n\tcomment "{comment}"\n' + "\n".join(parts) + "}\n"


def chain(name: str, kind: str, rules: Iterable[str]) -> str:
    """A base chain that accepts what its rules do not decide; `kind` is its type, hook and priority."""
    lines = [f"type {kind}; policy accept;", *rules]
    return f"\tchain {name} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n"


def removing(name: str) -> str:
    """A script that removes the table, whether it is there or not; before a table's text it replaces it, in one
    transaction."""
    return f"table inet {name}\ndelete table inet {name}\n"
