"""`ambit flows`: what is typed to choose."""

from typing import Any

import pytest
from click.testing import CliRunner

from ambit.cli.commands.flows import _text
from ambit.cli.main import ambit


@pytest.mark.parametrize("code", ["200,404", "abc", "xx", "4040", "-1", "", "999", "099", "4", "00"])
def test_what_is_no_status_is_named(code: str) -> None:
    result = CliRunner().invoke(ambit, ["flows", "--code", code])
    assert result.exit_code == 2
    assert f"{code!r} is neither a status like 404 nor a class of them like 5xx" in result.stderr


class Namespaces:
    """A client that knows these."""

    async def list(self, _: Any) -> list[dict[str, Any]]:
        return [{"metadata": {"name": "shop"}}, {"metadata": {"name": "jobs"}}]


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        ("curl", "curl"),
        ("shop/curl", "shop/curl"),
        ("deploy/curl", "/curl"),
        ("deployment.apps/curl", "/curl"),
        ("pod/curl-1", "/curl-1"),
        ("svc/reviews", "/reviews."),
        ("gateway/front", "/front"),
        ("jobs/curl", "jobs/curl"),
        ("10.244.1.2:80", "10.244.1.2:80"),
        (None, None),
    ],
)
async def test_ends_may_be_written_as_for_kubectl(typed: str | None, asked: str | None) -> None:
    """`jobs` is a namespace here."""
    assert await _text(Namespaces(), typed) == asked  # type: ignore[arg-type]
