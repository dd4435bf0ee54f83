"""The chained CNI plugin, run by the container runtime for each pod: it asks the node agent and passes on.

This file runs alone, on the host, with a copy of the agent's own interpreter (`ambit.node.cni.runtime`): it may use the
standard library only. Specification: CNI 1.1.0 (containernetworking.dev), chained plugins; codes below 100 are CNI's.

Rules:
1. A pod starts only after the agent answered. Without an answer it is refused with code 11 ("try again later"), and the
   kubelet tries again: the plugin cannot know which pods the mesh captures, because labels may have changed while the
   agent was away. Only pods of the configured system namespaces (the agent itself is one) start then, at once, so that
   a cluster can heal; the agent captures them when it is back if their labels ask for it.
2. A pod that ends is never held up: the agent also learns of its end from the API server.
3. The network itself is others' work: the result of the plugins before is passed on as it came.
"""

import json
import os
import socket
import sys
import time

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
RETURN = 5.0
"""Seconds an agent that restarts may take to be back."""
ANSWER = 60.0
"""Seconds an agent may take to capture a pod."""
FAREWELL = 10.0
"""Seconds the end of a pod may wait for the agent."""
PAUSE = 0.05

MISSING_VARIABLE, UNREADABLE, BAD_CONFIGURATION, TRY_AGAIN = 4, 6, 7, 11


class Refused(Exception):
    """The command fails with this CNI code and sentence."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Away(Exception):
    """The agent did not answer."""


def main() -> int:
    """One CNI command from environment and standard input; the exit status."""
    version = VERSIONS[-1]
    try:
        command = _variable("CNI_COMMAND")
        configuration = _read(sys.stdin.read())
        version = str(configuration.get("cniVersion", version))
        answer = run(command, configuration)
    except Refused as problem:
        failure = {"cniVersion": version, "code": problem.code, "msg": f"ambit: {problem}"}
        print(json.dumps(failure))  # noqa: T201 - where CNI wants it
        return 1
    if answer is not None:
        print(json.dumps(answer))  # noqa: T201
    return 0


def run(command: str, configuration: dict[str, object]) -> dict[str, object] | None:
    """What the command prints. Raises Refused."""
    if command == "VERSION":
        return {
            "cniVersion": configuration.get("cniVersion", VERSIONS[-1]),
            "supportedVersions": list(VERSIONS),
        }
    if command == "ADD":
        result = _previous(configuration)
        _add(configuration, result)
        return result
    if command == "CHECK":
        _previous(configuration)
    elif command == "DEL":
        _remove(configuration)
    elif command not in ("GC", "STATUS"):
        raise Refused(MISSING_VARIABLE, f"the CNI command {command!r} is not known")
    return None


def _add(configuration: dict[str, object], result: dict[str, object]) -> None:
    pod = _pod()
    if pod is None:
        return
    named = f"pod {pod['namespace']}/{pod['name']}"
    if not pod["uid"]:
        raise Refused(BAD_CONFIGURATION, f"the container runtime does not say the uid of {named}")
    request = {
        "command": "add",
        **pod,
        "sandbox": _variable("CNI_CONTAINERID"),
        "netns": _variable("CNI_NETNS"),
        "ips": _addresses(result),
    }
    is_system = pod["namespace"] in _system(configuration)
    try:
        reply = ask(_socket(configuration), request, 0 if is_system else RETURN, ANSWER)
    except Away as problem:
        if is_system:
            sys.stderr.write(f"ambit: {named} starts without the node agent: {problem}\n")
            return
        raise Refused(
            TRY_AGAIN,
            f"{named} waits for the node agent: {problem}; see the pods with the label app=ztunnel on this node",
        ) from None
    if reply.get("ok") is not True:
        raise Refused(TRY_AGAIN, str(reply.get("error") or "the node agent refused the pod"))


def _remove(configuration: dict[str, object]) -> None:
    pod = _pod()
    if pod is None:
        return
    request = {
        "command": "del",
        **pod,
        "sandbox": os.environ.get("CNI_CONTAINERID", ""),
        "netns": os.environ.get("CNI_NETNS", ""),
        "ips": [],
    }
    try:
        reply = ask(_socket(configuration), request, 0, FAREWELL)
    except Away as problem:
        sys.stderr.write(f"ambit: {pod['namespace']}/{pod['name']} ends without the node agent: {problem}\n")
        return
    if reply.get("ok") is not True:
        sys.stderr.write(f"ambit: {reply.get('error')}\n")


def ask(path: str, request: dict[str, object], patience: float, answer: float) -> dict[str, object]:
    """The agent's reply; `patience` and `answer` are seconds until it listens and until it replied. A connection that
    ends early is an agent that restarts. Raises Away."""
    line = json.dumps(request).encode() + b"\n"
    deadline = time.monotonic() + patience
    while True:
        try:
            return _exchange(path, line, answer)
        except TimeoutError:
            raise Away(f"no answer in {answer:.0f} s") from None
        except (OSError, ValueError) as problem:
            if time.monotonic() >= deadline:
                reason = problem.strerror if isinstance(problem, OSError) else None
                raise Away(f"{path}: {reason or problem}") from None
        time.sleep(PAUSE)


def _exchange(path: str, line: bytes, seconds: float) -> dict[str, object]:
    deadline = time.monotonic() + seconds
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        connection.connect(path)
        connection.sendall(line)
        received = b""
        while not received.endswith(b"\n"):
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            part = connection.recv(65536)
            if not part:
                raise ConnectionError("the connection ended without an answer")
            received += part
    reply = json.loads(received)
    if not isinstance(reply, dict):
        raise ConnectionError("the answer is not an object")
    return reply


def _pod() -> dict[str, object] | None:
    """Who the sandbox is for; None when it is not a pod's."""
    pairs = (pair.partition("=") for pair in os.environ.get("CNI_ARGS", "").split(";"))
    given = {key: value for key, _, value in pairs}
    if not given.get("K8S_POD_NAMESPACE") or not given.get("K8S_POD_NAME"):
        return None
    return {
        "namespace": given["K8S_POD_NAMESPACE"],
        "name": given["K8S_POD_NAME"],
        "uid": given.get("K8S_POD_UID", ""),
    }


def _addresses(result: dict[str, object]) -> list[str]:
    """The pod's own addresses: those of interfaces in the sandbox, or of no named interface."""
    interfaces, addresses = _objects(result, "interfaces"), []
    for each in _objects(result, "ips"):
        index = each.get("interface")
        if isinstance(index, int) and 0 <= index < len(interfaces) and not interfaces[index].get("sandbox"):
            continue
        addresses.append(str(each.get("address", "")).partition("/")[0])
    return addresses


def _objects(holder: dict[str, object], key: str) -> list[dict[str, object]]:
    found = holder.get(key)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _read(text: str) -> dict[str, object]:
    try:
        configuration = json.loads(text)
    except ValueError as problem:
        raise Refused(UNREADABLE, f"the configuration is no JSON: {problem}") from None
    if not isinstance(configuration, dict):
        raise Refused(UNREADABLE, "the configuration is not an object")
    return configuration


def _previous(configuration: dict[str, object]) -> dict[str, object]:
    result = configuration.get("prevResult")
    if not isinstance(result, dict):
        raise Refused(
            BAD_CONFIGURATION,
            "there is no prevResult: the plugin comes after one that makes networks",
        )
    return result


def _socket(configuration: dict[str, object]) -> str:
    path = configuration.get("socket")
    if not isinstance(path, str) or not path.startswith("/"):
        raise Refused(BAD_CONFIGURATION, "`socket` is not the absolute path of the node agent's socket")
    return path


def _system(configuration: dict[str, object]) -> list[object]:
    names = configuration.get("systemNamespaces")
    return names if isinstance(names, list) else []


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise Refused(MISSING_VARIABLE, f"{name} is not set")
    return value


if __name__ == "__main__":
    sys.exit(main())
