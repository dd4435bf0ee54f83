"""`./dev conformance`: the Gateway API's official conformance suite against ambit, on two real nodes of this machine.

Without `--profile`: every profile of which something is supported. The reports are written to docs/conformance/ when
all rounds of a run have passed; what the suite says of each test is in .cache/conformance/. All other arguments are
flags of the suite: `-run-test MeshBasic`.
"""

import argparse
import collections
import json
import os
import signal
import sys
import time
from contextlib import AbstractContextManager

from ambit.core.errors import AmbitError
from tests.conformance import echo, places, reports, runs
from tests.kubernetes.installed import ROOT, stop, timed

REPORTS = ROOT / "docs/conformance"
LOGS = ROOT / ".cache/conformance"
DELETED = "180s"


def main() -> int:
    """Runs all of it; 0 when every profile passed in every round."""
    parser = argparse.ArgumentParser(
        prog="./dev conformance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [profile for profiles in runs.PROFILES.values() for profile in profiles]
    parser.add_argument(
        "--profile", action="append", default=[], choices=known, help="one profile (repeatable)"
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often each run is repeated")
    parser.add_argument(
        "--laptop", action="store_true", help="on a laptop cluster; nothing is written to docs/"
    )
    parser.add_argument(
        "--channel",
        choices=("standard", "experimental"),
        help="of the Gateway API (default: on nodes what charts install, `standard`; on a laptop `experimental`)",
    )
    parser.add_argument("--keep", action="store_true", help="leave the cluster running, and use one that is")
    options, words = parser.parse_known_args()
    options.channel = options.channel or ("experimental" if options.laptop else "standard")
    signal.signal(signal.SIGTERM, stop)
    try:
        with timed("suite and servers"):
            servers = echo.build()
        with _place(options, servers) as where:
            chosen = runs.chosen(tuple(options.profile))
            passed = [_rounds(where, servers, run, options, words) for run in chosen]
        return 0 if all(passed) else 1
    except AmbitError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code


def _place(options: argparse.Namespace, servers: echo.Servers) -> AbstractContextManager[places.Where]:
    name = f"conformance-{options.channel if options.keep else os.getpid()}"
    if options.laptop:
        return places.laptop(servers, name, options.channel, LOGS / "state", keep=options.keep)
    return places.nodes(servers, name, options.channel, keep=options.keep)


def _rounds(
    where: places.Where, servers: echo.Servers, run: runs.Run, options: argparse.Namespace, words: list[str]
) -> bool:
    """Whether every round passed; prints what came out, and keeps the last report when it may be shown."""
    LOGS.mkdir(parents=True, exist_ok=True)
    failed: collections.Counter[str] = collections.Counter()
    broken = 0
    text = ""
    for number in range(1, options.rounds + 1):
        report, log = LOGS / f"{run.mode}.yaml", LOGS / f"{run.mode}-{number}.log"
        report.unlink(missing_ok=True)
        began = time.monotonic()
        _prepare(where, run)
        code = where.run(
            [
                str(servers.suite),
                *run.arguments(report, experimental=options.channel == "experimental"),
                *words,
            ],
            log,
        )
        counted = runs.results(log.read_text())
        failed.update(name for name, result in counted.items() if result == "FAIL")
        text = report.read_text() if report.exists() else ""
        broken += code != 0 or not reports.succeeded(text)
        passed = sum(result == "PASS" for result in counted.values())
        told = f"{run.mode}, round {number}: {passed} tests passed, {time.monotonic() - began:.0f} s"
        print(told if code == 0 else f"{told}, exit code {code}: {log}", flush=True)
    print("\n".join(reports.summary(text)))
    for name, times in sorted(failed.items()):
        print(f"{name} failed in {times} of {options.rounds} rounds")
    if not broken and not options.laptop and not words:
        REPORTS.mkdir(exist_ok=True)
        target = REPORTS / reports.file_name(text)
        target.write_text(text)
        print(f"written: {target.relative_to(ROOT)}")
    return not broken


def _prepare(where: places.Where, run: runs.Run) -> None:
    """Every round starts in new namespaces."""
    for namespace in run.namespaces:
        where.kubectl(
            "delete", "namespace", namespace, "--ignore-not-found", "--wait", f"--timeout={DELETED}"
        )
        objects = {"apiVersion": "v1", "kind": "List", "items": runs.waypoint(namespace)}
        where.kubectl("apply", "-f", "-", stdin=json.dumps(objects))


if __name__ == "__main__":
    sys.exit(main())
