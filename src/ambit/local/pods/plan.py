"""From a pod to what its shim is told: sandbox settings, process settings. Pure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ambit.local.pods import images
from ambit.local.pods.names import hostname_of
from ambit.local.pods.shim.protocol import Process, Sandbox
from ambit.local.pods.status import Restart, Slot


def sandbox_id(pod: Mapping[str, Any]) -> str:
    """Unique among all pods, readable, short enough for a socket path."""
    metadata = pod["metadata"]
    return f"{metadata['name'][:40].replace('.', '-')}-{metadata['uid'][:8]}"


def sandbox_of(
    pod: Mapping[str, Any],
    directory: Path,
    netns: Path,
    view: tuple[list[str], list[str]],
    user_base: int,
) -> Sandbox:
    """`view` is what the host hides from pods and what they read all the same."""
    hidden, readable = view
    return {
        "socket": str(directory / "shim.sock"),
        "staging": str(directory / "root"),
        "netns": str(netns),
        "hostname": hostname_of(pod),
        "host_pids": bool(pod["spec"].get("hostPID")),
        "host_network": bool(pod["spec"].get("hostNetwork")),
        "hidden": hidden,
        "readable": readable,
        "user_base": user_base,
    }


def slots_of(pod: Mapping[str, Any]) -> list[Slot]:
    policy: Restart = pod["spec"].get("restartPolicy") or "Always"
    slots = []
    for container in pod["spec"].get("initContainers") or ():
        sidecar = container.get("restartPolicy") == "Always"
        # An init container is run again until it succeeds, unless the pod is never restarted.
        restart: Restart = "Always" if sidecar else ("Never" if policy == "Never" else "OnFailure")
        slots.append(
            Slot(container["name"], container.get("image", ""), "sidecar" if sidecar else "init", restart)
        )
    slots += [Slot(item["name"], item.get("image", ""), "main", policy) for item in pod["spec"]["containers"]]
    return slots


def is_privileged(container: Mapping[str, Any]) -> bool:
    return bool((container.get("securityContext") or {}).get("privileged"))


def wants_user(pod: Mapping[str, Any], container: Mapping[str, Any]) -> bool:
    """Whether another user than root is asked for."""
    shared = pod["spec"].get("securityContext") or {}
    return bool((container.get("securityContext") or {}).get("runAsUser", shared.get("runAsUser")))


def process_of(
    pod: Mapping[str, Any],
    container: Mapping[str, Any],
    argv: list[str],
    environment: Mapping[str, str],
    *,
    users: bool,
) -> Process:
    """`users` tells whether other users than root exist here; without them runAsUser cannot be honoured."""
    own = container.get("securityContext") or {}
    shared = pod["spec"].get("securityContext") or {}
    user = own.get("runAsUser", shared.get("runAsUser"))
    group = own.get("runAsGroup", shared.get("runAsGroup"))
    groups = list(shared.get("supplementalGroups") or ())
    if shared.get("fsGroup") is not None:
        groups.append(shared["fsGroup"])
    return {
        "argv": argv,
        "environment": dict(environment),
        "directory": container.get("workingDir") or "/",
        "user": user if users else None,
        "group": (group if group is not None or user is None else 0) if users else None,
        "groups": groups if users else [],
    }


def base_environment(pod: Mapping[str, Any], image: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": images.PATH, "HOSTNAME": hostname_of(pod), "HOME": "/root", "LC_ALL": "C.UTF-8", **image}


def ports_by_name(container: Mapping[str, Any]) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container.get("ports") or () if port.get("name")}


def port_of(container: Mapping[str, Any], port: int | str) -> int:
    """A probe's port, which may be a container port's name. Raises ValueError for an unknown name."""
    if isinstance(port, int) or str(port).isdigit():
        return int(port)
    named = ports_by_name(container)
    if port not in named:
        raise ValueError(f"container has no port named {port!r}")
    return named[port]


def grace_of(pod: Mapping[str, Any]) -> float:
    """The pod's own termination grace in seconds."""
    seconds = pod["spec"].get("terminationGracePeriodSeconds")
    return 30.0 if seconds is None else float(seconds)


def container_of(pod: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The spec of a container or init container. Raises LookupError."""
    for container in (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]):
        if container["name"] == name:
            return dict(container)
    raise LookupError(f"container {name} is not valid for pod {pod['metadata']['name']}")


def field_path(slot: Slot) -> str:
    """How events name a container."""
    return f"spec.{'containers' if slot.kind == 'main' else 'initContainers'}{{{slot.name}}}"
