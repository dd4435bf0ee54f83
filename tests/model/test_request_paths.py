"""Whatever a server makes of a path, no policy about it is passed by: `ambit.model.request_paths`."""

import re
from collections.abc import Callable, Iterator
from itertools import product
from urllib.parse import unquote

import pytest
import re2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ambit.model.policy import Exact, Prefix, Presence, Suffix
from ambit.model.request_paths import MISLEADING, PathValue, lax, strict
from ambit.model.request_policy import PathTemplate

VALUES: list[PathValue] = [
    Exact("/admin"),
    Exact("/a/admin"),
    Exact("/admin/"),
    Exact("/"),
    Prefix("/admin"),
    Prefix("/public/"),
    Prefix("/a/public/"),
    Suffix("/admin"),
    Suffix(".html"),
    Suffix("admin"),
    Presence(),
    PathTemplate("/a/{*}/admin"),
    PathTemplate("/{*}"),
    PathTemplate("/a/{**}"),
    PathTemplate("/{*}/public/{**}"),
]
PIECES = (
    *("/", "//", "a", "admin", "public", ".html", "x", ";", ";x", ";x=1", "%2f", "%2F", "%5c", "\\", "%252f"),
    *("%61", "%2561", "%2e", ".", "..", "%252e%252e", "%3b", "%3B", "%00", "%3f", "%23", "%"),
)
Server = Callable[[str], str]


def test_the_usual_spellings() -> None:
    for path in (
        "/admin",
        "//admin",
        "/%61dmin",
        "/%2561dmin",
        "/admin;x=1",
        "/;/admin",
        "\\admin",
        "/%2Fadmin",
        "/admin%3fa/b",
        "/admin;a%2523",
    ):
        assert denies(Exact("/admin"), path), path
    for path in ("/administrator", "/admin/", "/a", "/x/admin", "/admi", "/ADMIN"):
        assert not denies(Exact("/admin"), path), path
    assert denies(Exact("/admin"), "/public/..;/admin")
    assert not allows(Prefix("/public/"), "/public/..;/admin")
    assert not allows(Prefix("/public/"), "/public/..%2Fadmin")
    assert not allows(Prefix("/public/"), "/public/%2e%2e%2fadmin")
    assert allows(Prefix("/public/"), "/public/a%2Fb;c//d..e/.f")
    assert not allows(Suffix(".html"), "/admin;.html")
    assert allows(PathTemplate("/a/{*}/c"), "/a/b/c")
    assert not allows(PathTemplate("/a/{*}/c"), "/a/b/b/c")
    assert not allows(PathTemplate("/a/{*}/c"), "/a/b%2Fb/c")
    assert allows(PathTemplate("/a/{**}"), "/a/b/c")
    assert not allows(PathTemplate("/a/{**}"), "/b")


@given(st.sampled_from(VALUES), st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
@example(Exact("/admin"), "public/..;x/admin")
@example(Suffix(".html"), "admin;.html")
@example(Prefix("/public/"), "public/..%3f")
@example(Exact("/admin"), "admin%253f/a")
@settings(max_examples=500, deadline=None)
def test_no_server_is_led_past_a_policy(value: PathValue, rest: str) -> None:
    path = normalised("/" + rest)
    for server in servers():
        read = server(path)
        if means(value, read):
            assert denies(value, path), read
        if allows(value, path):
            assert means(value, read), read


@pytest.mark.parametrize("value", VALUES)
def test_what_is_allowed_is_what_is_written(value: PathValue) -> None:
    for path in (
        "/",
        "/a",
        "/admin",
        "/a/admin",
        "/public/x",
        "/a/public/x.html",
        "/a/x/admin",
        "/x/public/",
    ):
        assert allows(value, path) == means(value, path) == denies(value, path)


def denies(value: PathValue, path: str) -> bool:
    return bool(re2.fullmatch(lax(value), path) or re2.fullmatch(MISLEADING, path))


def allows(value: PathValue, path: str) -> bool:
    wanted = strict(value)
    return bool(re2.fullmatch(wanted.path, path)) and not any(
        re2.fullmatch(each, path) for each in wanted.unless
    )


def means(value: PathValue, path: str) -> bool:
    """Without any thought of spellings."""
    match value:
        case Exact(text):
            return path == text
        case Prefix(text):
            return path.startswith(text)
        case Suffix(text):
            return path.endswith(text)
        case Presence():
            return True
        case PathTemplate(text):
            pattern = re.escape(text).replace(r"\{\*\*\}", ".*").replace(r"\{\*\}", "[^/]+")
            return re.fullmatch(pattern, path, re.DOTALL) is not None


def normalised(path: str) -> str:
    """What the proxy does before anything is compared: escapes of unreserved characters, dots between slashes."""
    path = re.sub(
        "%(2[dDeE]|5[fF]|7[eE]|3[0-9]|[46][1-9a-fA-F]|[57][0-9aA])", lambda found: unquote(found[0]), path
    )
    return dots(path.replace("\\", "/"))


def dots(path: str) -> str:
    kept: list[str] = []
    parts = path.split("/")
    for index, part in enumerate(parts):
        if part in (".", ".."):
            if part == ".." and len(kept) > 1:
                kept.pop()
            if index == len(parts) - 1:
                kept.append("")
        else:
            kept.append(part)
    return "/".join(kept) if kept[0] == "" and len(kept) > 1 else "/"


def servers() -> Iterator[Server]:
    """Ways of reading a path."""
    for times, first, last, backslash, cut, merge, resolve in product((0, 1, 2), *[(False, True)] * 6):

        def read(
            path: str,
            times: int = times,
            first: bool = first,
            last: bool = last,
            backslash: bool = backslash,
            cut: bool = cut,
            merge: bool = merge,
            resolve: bool = resolve,
        ) -> str:
            path = re.sub(";[^/]*", "", path) if first else path
            for _ in range(times):
                path = unquote(path, errors="surrogateescape")
            path = path.replace("\\", "/") if backslash else path
            path = re.split("[?#]", path)[0] if cut else path
            path = re.sub(";[^/]*", "", path) if last else path
            path = path.partition("\0")[0] if times else path
            path = re.sub("//+", "/", path) if merge else path
            return dots(path) if resolve else path

        yield read
