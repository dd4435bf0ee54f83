"""`python -m bench [SUBJECT...]`: measure, and print each number with its target and the distance.

Numbers without a target give context. Exit code 1 when a target is missed. Every run is appended to
`.cache/bench/history.jsonl`.
"""

import argparse
import asyncio
import signal
import sys
import time

import msgspec

from ambit.core.errors import AmbitError
from bench import (
    compiler,
    crowd,
    demo,
    flows,
    inline,
    kill,
    latency,
    listeners,
    memory,
    parts,
    policy,
    propagation,
    routes,
    startup,
    upgrade,
    waypoint,
)
from bench.control import measure as control
from bench.datapath import measure as datapath
from bench.harness import Number, Options, Subject, machine, markdown, remember, table
from bench.kubernetes import measure as kubernetes

SUBJECTS = (
    Subject("startup", "ambit up, bookinfo, memory", startup.measure),
    Subject("demo", "ambit demo --once", demo.measure),
    Subject("latency", "first connections and DNS, from inside an enrolled pod", latency.measure),
    Subject(
        "datapath",
        "throughput, requests, connections against direct and sidecars",
        datapath.measure,
        datapath.show,
    ),
    Subject(
        "inline",
        "requests through a waypoint in pods, an inline one, a chain of plain Envoys",
        inline.measure,
    ),
    Subject("waypoint", "a waypoint's memory, and routes that change on all of its pods", waypoint.measure),
    Subject("parts", "what a service costs a waypoint's Envoy, part by part", parts.measure, usual=False),
    Subject("crowd", "250 pods on one node join and leave, and what an idle one costs", crowd.measure),
    Subject("memory", "what open connections, and a large mesh, cost a node", memory.measure),
    Subject("flows", "the agent's work for one connection", flows.measure),
    Subject("compile", "the compiler with 100,000 pods", compiler.measure),
    Subject("routes", "5,000 routes, compiled and planned for their proxy", routes.measure),
    Subject("listeners", "1,000 HTTPS listeners of ListenerSets, compiled", listeners.measure),
    Subject("push", "one pod change from the API server to 50 nodes", propagation.measure),
    Subject("policy", "one policy made or deleted, until connections meet it", policy.measure),
    Subject("upgrade", "every node's Envoy replaced under 2,000 new connections a second", upgrade.measure),
    Subject(
        "kill",
        "Envoys, agents and the control plane killed with -9: until new connections are answered",
        kill.measure,
    ),
    Subject("control", "the control plane with 10,000 and 100,000 pods and 100 nodes", control.measure),
    Subject(
        "kubernetes",
        "ambit and Istio's ambient mesh on two real nodes (root, containerd, once Go); only when named",
        kubernetes.measure,
        kubernetes.show,
        usual=False,
    ),
)


def main() -> int:
    given = _arguments()
    chosen = [each for each in SUBJECTS if (each.name in given.subjects if given.subjects else each.usual)]
    if given.list:
        for subject in SUBJECTS:
            print(f"{subject.name:<10} {subject.about}")
        return 0
    options = Options(given.rounds, given.seconds, given.quick)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # clusters go down
    results: dict[str, list[Number]] = {}
    before = machine()
    for subject in chosen:
        started = time.monotonic()
        print(f"{subject.name}: {subject.about} …", file=sys.stderr, flush=True)
        try:
            results[subject.name] = asyncio.run(subject.measure(options))
        except AmbitError as problem:
            print(
                f"error: {problem.message}\n\nhint: {problem.hint or 'read what was printed before'}",
                file=sys.stderr,
            )
            return problem.exit_code
        if given.output == "markdown":
            print(markdown(subject.name, results[subject.name]), end="\n\n", flush=True)
        elif given.output == "table":
            numbers = results[subject.name]
            if subject.show is not None:
                print(subject.show(subject.name, numbers), end="\n\n")
                numbers = [each for each in numbers if each.unit in ("×", "MiB")]
            print(table(subject.name, numbers))
            print(f"  ({time.monotonic() - started:.0f} s)\n", flush=True)
    remember(results, options)
    if given.output == "json":
        text = msgspec.json.format(msgspec.json.encode({"machine": before, "results": results}), indent=1)
        print(text.decode())
    else:
        print(", ".join(f"{key} {value}" for key, value in before.items()))
    missed = [
        f"{name}: {each.name}" for name, all_ in results.items() for each in all_ if each.holds is False
    ]
    for each in missed:
        print(f"missed: {each}", file=sys.stderr)
    return 1 if missed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "subjects", nargs="*", metavar="SUBJECT", help=", ".join(each.name for each in SUBJECTS)
    )
    parser.add_argument("--list", action="store_true", help="list the subjects")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions (default 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each load measurement (default 2)")
    parser.add_argument("--quick", action="store_true", help="one short round of everything")
    parser.add_argument("-o", "--output", choices=["table", "markdown", "json"], default="table")
    given = parser.parse_args()
    unknown = set(given.subjects) - {each.name for each in SUBJECTS}
    if unknown:
        parser.error(f"no subject {', '.join(sorted(unknown))}; `--list` shows them")
    if given.quick:
        given.rounds, given.seconds = 1, min(given.seconds, 1.0)
    return given


if __name__ == "__main__":
    sys.exit(main())
