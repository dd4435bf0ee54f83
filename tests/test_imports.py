"""What each process and command imports: start time and memory are counted in modules, not by a clock."""

import json
import subprocess
import sys

import grimp
import pytest

SERVER_ONLY = {"aiohttp", "jsonschema_rs", "cel", "orjson", "jwt", "yaml"}
"""Libraries of the laptop's API server, and of people's files."""


def imported(statement: str) -> set[str]:
    """Names of all modules that a fresh interpreter has after the statement."""
    program = (
        "import atexit, json, sys\n"
        "sys.argv = ['ambit', '--help']\n"
        "atexit.register(lambda: print('\\n' + json.dumps(list(sys.modules))))\n" + statement
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("statement", "unwanted", "most"),
    [
        ("from ambit.cli.main import main; main()", {"asyncio", "msgspec", "ssl"}, 160),
        ("import ambit.local.pods.shim.main", {"asyncio", "msgspec", "typing", "ssl"}, 130),
        (
            "import ambit.cli.access",
            SERVER_ONLY | {"cryptography", "grpc", "google.protobuf", "sqlite3"},
            330,
        ),
        ("import ambit.node.main", SERVER_ONLY | {"click", "envoy.api.v2.cds_pb2"}, 812),
        ("import ambit.control.main", SERVER_ONLY | {"click", "sqlite3"}, 584),
        ("import ambit.local.cluster", {"grpc", "google.protobuf", "click"}, 700),
    ],
)
def test_what_is_imported(statement: str, unwanted: set[str], most: int) -> None:
    found = imported(statement)
    assert not found & unwanted
    assert len(found) <= most


def test_no_module_imports_itself_through_others() -> None:
    graph = grimp.build_graph("ambit")
    left = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
    while ends := {module for module, needed in left.items() if not needed}:
        left = {module: needed - ends for module, needed in left.items() if module not in ends}
    assert not left, "these import each other in a circle, or import those that do"
