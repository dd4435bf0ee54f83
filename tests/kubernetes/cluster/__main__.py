"""The cluster's command line: `python -m tests.kubernetes.cluster --help`."""

import argparse
import sys
import time
from pathlib import Path

from ambit.core.errors import AmbitError
from tests.kubernetes.cluster import lifecycle, programs
from tests.kubernetes.cluster.settings import Cluster, state_folder

# These hand all that follows them to another program.
PASSING = {"kubectl": "kubectl as administrator", "exec": "a command in the cluster's network"}


def main() -> int:
    """Runs one command and returns the exit code."""
    parser = _parser()
    options, words = parser.parse_known_args()
    if words and options.command not in PASSING:
        parser.error(f"unrecognized arguments: {' '.join(words)}")
    state: Path = options.state or state_folder(options.name)
    try:
        return _run(options, words, state)
    except AmbitError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code


def _run(options: argparse.Namespace, words: list[str], state: Path) -> int:
    command: str = options.command
    match command:
        case "up":
            began = time.monotonic()
            cluster = Cluster(options.name, state, options.nodes)
            lifecycle.up(cluster)
            print(f"{options.nodes} nodes ready after {time.monotonic() - began:.1f} s")
            print(f"export KUBECONFIG={cluster.kubeconfig()}; {' '.join(cluster.inside())} kubectl get nodes")
        case "down":
            lifecycle.down(state)
        case "build":
            print(programs.build())
        case "load":
            for archive in options.archives:
                lifecycle.load_image(lifecycle.running(state), archive)
        case "exec":
            return lifecycle.execute(lifecycle.running(state), words[words[:1] == ["--"] :])
        case "kubectl":
            return lifecycle.execute(lifecycle.running(state), ["kubectl", *words])
        case "node":
            lifecycle.run_node(lifecycle.running(state), options.number)
        case _:
            raise AssertionError(command)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.kubernetes.cluster", description=lifecycle.__doc__)
    parser.add_argument("--name", default="ambit-kubernetes", help="which cluster; several can run at once")
    parser.add_argument(
        "--state", type=Path, help="its folder (default: KUBE_STATE, else one made from the name)"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start a cluster").add_argument("--nodes", type=int, default=2)
    commands.add_parser("down", help="take it down; nothing is left but the cached programs")
    commands.add_parser("build", help="build the cluster's programs into the cache")
    loader = commands.add_parser("load", help="import image archives on every node")
    loader.add_argument("archives", nargs="+", type=Path)
    for name, text in PASSING.items():
        commands.add_parser(name, help=text, add_help=False)
    commands.add_parser("node").add_argument("number", type=int)
    return parser


if __name__ == "__main__":
    sys.exit(main())
