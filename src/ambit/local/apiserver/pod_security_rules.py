"""The rules of the Pod Security Standards. Each looks at a pod, or a template, and returns reason and detail. Pure.

Source: k8s.io/docs/concepts/security/pod-security-standards. Reasons, details and their order are those of the
admission plugin of Kubernetes 1.34.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

Pod = Mapping[str, Any]
Violation = tuple[str, str] | None

_DEFAULT_CAPABILITIES = frozenset(
    [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
)
_SYSCTLS: Mapping[str, int] = {
    "kernel.shm_rmid_forced": 0,
    "net.ipv4.ip_local_port_range": 0,
    "net.ipv4.tcp_syncookies": 0,
    "net.ipv4.ping_group_range": 0,
    "net.ipv4.ip_unprivileged_port_start": 0,
    "net.ipv4.ip_local_reserved_ports": 27,
    "net.ipv4.tcp_keepalive_time": 29,
    "net.ipv4.tcp_fin_timeout": 29,
    "net.ipv4.tcp_keepalive_intvl": 29,
    "net.ipv4.tcp_keepalive_probes": 29,
    "net.ipv4.tcp_rmem": 32,
    "net.ipv4.tcp_wmem": 32,
}
"""Safe ones, and the minor version from which on they are allowed."""
_SELINUX_TYPES: Mapping[str, int] = {
    "": 0,
    "container_t": 0,
    "container_init_t": 0,
    "container_kvm_t": 0,
    "container_engine_t": 31,
}
_VOLUMES = frozenset(
    [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
        "image",
    ]
)
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


class Rule(msgspec.Struct, frozen=True):
    """`since` is the minor version of Kubernetes; `replaces` names the rule of level baseline that this contains."""

    name: str
    check: Callable[[Pod, int], Violation]
    since: int = 0
    replaces: str = ""


def _containers(pod: Pod) -> Iterator[Mapping[str, Any]]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from pod["spec"].get(kind) or ()


def _context(of: Mapping[str, Any]) -> Mapping[str, Any]:
    return of.get("securityContext") or {}


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _named(noun: str, names: Sequence[str]) -> str:
    return f"{noun}{'s' if len(names) > 1 else ''} {_quoted(names)}"


def _violating(pod: Pod, is_bad: Callable[[Mapping[str, Any]], bool]) -> list[str]:
    return [each.get("name", "") for each in _containers(pod) if is_bad(each)]


def _setters(pod: Pod, is_bad: Callable[[Mapping[str, Any]], bool]) -> str:
    """`pod and containers "a", "b"`: whose security contexts are bad; empty for none."""
    found = ["pod"] if is_bad(_context(pod["spec"])) else []
    names = _violating(pod, lambda each: is_bad(_context(each)))
    return " and ".join([*found, *([_named("container", names)] if names else [])])


def _app_armor(pod: Pod, _: int) -> Violation:
    def is_bad(context: Mapping[str, Any]) -> bool:
        return (context.get("appArmorProfile") or {}).get("type") == "Unconfined"

    setters = _setters(pod, is_bad)
    found = (
        [f'{setters} must not set securityContext.appArmorProfile.type to "Unconfined"'] if setters else []
    )
    annotations = pod.get("metadata", {}).get("annotations") or {}
    wrong = [
        f'{name}="{value}"'
        for name, value in sorted(annotations.items())
        if name.startswith(_APPARMOR)
        and value not in ("", "runtime/default")
        and not value.startswith("localhost/")
    ]
    if wrong:
        found.append(f"annotation{'s' if len(wrong) > 1 else ''} {', '.join(wrong)}")
    plural = "s" if len(found) > 1 or len(wrong) > 1 else ""
    return (f"forbidden AppArmor profile{plural}", " and ".join(found)) if found else None


def _added(container: Mapping[str, Any], allowed: Iterable[str]) -> set[str]:
    capabilities = _context(container).get("capabilities") or {}
    return set(capabilities.get("add") or ()) - set(allowed)


def _default_capabilities(pod: Pod, _: int) -> Violation:
    detail = _too_many_capabilities(pod, _DEFAULT_CAPABILITIES)
    return ("non-default capabilities", detail) if detail else None


def _too_many_capabilities(pod: Pod, allowed: Iterable[str]) -> str:
    names = _violating(pod, lambda each: bool(_added(each, allowed)))
    if not names:
        return ""
    added = sorted(set().union(*(_added(each, allowed) for each in _containers(pod))))
    return (
        f"{_named('container', names)} must not include {_quoted(added)} in securityContext.capabilities.add"
    )


def _host_namespaces(pod: Pod, _: int) -> Violation:
    found = [f"{name}=true" for name in ("hostNetwork", "hostPID", "hostIPC") if pod["spec"].get(name)]
    return ("host namespaces", ", ".join(found)) if found else None


def _host_paths(pod: Pod, _: int) -> Violation:
    names = [each.get("name", "") for each in pod["spec"].get("volumes") or () if "hostPath" in each]
    return ("hostPath volumes", _named("volume", names)) if names else None


def _host_ports(pod: Pod, _: int) -> Violation:
    def of(container: Mapping[str, Any]) -> set[int]:
        return {port["hostPort"] for port in container.get("ports") or () if port.get("hostPort")}

    names = _violating(pod, lambda each: bool(of(each)))
    if not names:
        return None
    ports = sorted(set().union(*map(of, _containers(pod))))
    uses, noun = "use" if len(names) > 1 else "uses", "hostPorts" if len(ports) > 1 else "hostPort"
    return "hostPort", f"{_named('container', names)} {uses} {noun} {', '.join(map(str, ports))}"


def _hosts_of_handlers(container: Mapping[str, Any]) -> set[str]:
    probes = [container.get(name) for name in ("livenessProbe", "readinessProbe", "startupProbe")]
    hooks = (container.get("lifecycle") or {}).values()
    return {
        str(handler[kind]["host"])
        for handler in (*probes, *hooks)
        if handler
        for kind in ("httpGet", "tcpSocket")
        if (handler.get(kind) or {}).get("host")
    }


def _hosts_of_probes(pod: Pod, _: int) -> Violation:
    names = sorted(_violating(pod, lambda each: bool(_hosts_of_handlers(each))))
    if not names:
        return None
    hosts = sorted(set().union(*map(_hosts_of_handlers, _containers(pod))))
    uses, noun = "use" if len(names) > 1 else "uses", "probe or lifecycle host"
    detail = f"{_named('container', names)} {uses} {_named(noun, hosts)}"
    return noun, detail


def _privileged(pod: Pod, _: int) -> Violation:
    names = _violating(pod, lambda each: bool(_context(each).get("privileged")))
    detail = f"{_named('container', names)} must not set securityContext.privileged=true"
    return ("privileged", detail) if names else None


def _proc_mount(pod: Pod, _: int) -> Violation:
    def of(container: Mapping[str, Any]) -> str:
        return _context(container).get("procMount") or "Default"

    names = _violating(pod, lambda each: of(each) != "Default")
    kinds = _quoted(sorted({of(each) for each in _containers(pod)} - {"Default"}))
    detail = f"{_named('container', names)} must not set securityContext.procMount to {kinds}"
    return ("procMount", detail) if names else None


def _selinux(pod: Pod, version: int) -> Violation:
    allowed = {name for name, since in _SELINUX_TYPES.items() if since <= version}

    def options(context: Mapping[str, Any]) -> Mapping[str, Any]:
        return context.get("seLinuxOptions") or {}

    def is_bad(context: Mapping[str, Any]) -> bool:
        given = options(context)
        return (given.get("type") or "") not in allowed or bool(given.get("user") or given.get("role"))

    setters = _setters(pod, is_bad)
    if not setters:
        return None
    given = [options(_context(each)) for each in (pod["spec"], *_containers(pod))]
    types = sorted({each.get("type") or "" for each in given} - allowed)
    wrong = [_named("type", types)] if types else []
    wrong += [f"{name} may not be set" for name in ("user", "role") if any(each.get(name) for each in given)]
    return "seLinuxOptions", f"{setters} set forbidden securityContext.seLinuxOptions: {'; '.join(wrong)}"


def _seccomp_type(context: Mapping[str, Any]) -> str:
    return (context.get("seccompProfile") or {}).get("type") or ""


def _seccomp_setters(pod: Pod, allowed: Sequence[str]) -> Violation:
    setters = _setters(pod, lambda context: _seccomp_type(context) not in ("", *allowed))
    if not setters:
        return None
    contexts = [_context(each) for each in (pod["spec"], *_containers(pod))]
    types = _quoted(sorted({_seccomp_type(each) for each in contexts} - {"", *allowed}))
    return "seccompProfile", f"{setters} must not set securityContext.seccompProfile.type to {types}"


def _seccomp_baseline(pod: Pod, _: int) -> Violation:
    return _seccomp_setters(pod, ("RuntimeDefault", "Localhost"))


def _sysctls(pod: Pod, version: int) -> Violation:
    given = [each.get("name", "") for each in _context(pod["spec"]).get("sysctls") or ()]
    wrong = [name for name in given if _SYSCTLS.get(name, version + 1) > version]
    return ("forbidden sysctls", ", ".join(wrong)) if wrong else None


def _host_process(pod: Pod, _: int) -> Violation:
    setters = _setters(pod, lambda context: bool((context.get("windowsOptions") or {}).get("hostProcess")))
    detail = f"{setters} must not set securityContext.windowsOptions.hostProcess=true"
    return ("hostProcess", detail) if setters else None


def _is_windows(pod: Pod, version: int) -> bool:
    return version >= 25 and (pod["spec"].get("os") or {}).get("name") == "windows"


def _privilege_escalation(pod: Pod, version: int) -> Violation:
    names = _violating(pod, lambda each: _context(each).get("allowPrivilegeEscalation") is not False)
    if not names or _is_windows(pod, version):
        return None
    detail = f"{_named('container', names)} must set securityContext.allowPrivilegeEscalation=false"
    return "allowPrivilegeEscalation != false", detail


def _dropped_capabilities(pod: Pod, version: int) -> Violation:
    def keeps(container: Mapping[str, Any]) -> bool:
        return "ALL" not in ((_context(container).get("capabilities") or {}).get("drop") or ())

    names = _violating(pod, keeps)
    found = (
        [f'{_named("container", names)} must set securityContext.capabilities.drop=["ALL"]'] if names else []
    )
    found += filter(None, [_too_many_capabilities(pod, ("NET_BIND_SERVICE",))])
    if not found or _is_windows(pod, version):
        return None
    return "unrestricted capabilities", "; ".join(found)


def _restricted_volumes(pod: Pod, _: int) -> Violation:
    wrong = {
        each.get("name", ""): next(iter(sorted(each.keys() - {"name"})), "unknown")
        for each in pod["spec"].get("volumes") or ()
        if not _VOLUMES & each.keys()
    }
    if not wrong:
        return None
    uses = "use" if len(wrong) > 1 else "uses"
    types = _named("restricted volume type", sorted(set(wrong.values())))
    return "restricted volume types", f"{_named('volume', list(wrong))} {uses} {types}"


def _non_root(pod: Pod, _: int) -> Violation:
    reason, shared = "runAsNonRoot != true", _context(pod["spec"]).get("runAsNonRoot")
    setters = _setters(pod, lambda context: context.get("runAsNonRoot") is False)
    if setters:
        return reason, f"{setters} must not set securityContext.runAsNonRoot=false"
    names = _violating(pod, lambda each: _context(each).get("runAsNonRoot") is None)
    if shared or not names:
        return None
    return reason, f"pod or {_named('container', names)} must set securityContext.runAsNonRoot=true"


def _user(pod: Pod, _: int) -> Violation:
    setters = _setters(pod, lambda context: context.get("runAsUser") == 0)
    return ("runAsUser=0", f"{setters} must not set runAsUser=0") if setters else None


def _seccomp_restricted(pod: Pod, version: int) -> Violation:
    allowed = ("RuntimeDefault", "Localhost")
    if _is_windows(pod, version):
        return None
    if wrong := _seccomp_setters(pod, allowed):
        return wrong
    names = _violating(pod, lambda each: not _seccomp_type(_context(each)))
    if _seccomp_type(_context(pod["spec"])) or not names:
        return None
    wanted = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return "seccompProfile", f"pod or {_named('container', names)} {wanted}"


BASELINE = (
    Rule("appArmorProfile", _app_armor),
    Rule("capabilities", _default_capabilities),
    Rule("hostNamespaces", _host_namespaces),
    Rule("hostPathVolumes", _host_paths),
    Rule("hostPorts", _host_ports),
    Rule("hostProbesAndHostLifecycle", _hosts_of_probes, 34),
    Rule("privileged", _privileged),
    Rule("procMount", _proc_mount),
    Rule("seLinuxOptions", _selinux),
    Rule("seccompProfile", _seccomp_baseline, 19),
    Rule("sysctls", _sysctls),
    Rule("windowsHostProcess", _host_process),
)
RESTRICTED = (
    Rule("allowPrivilegeEscalation", _privilege_escalation, 8),
    Rule("capabilities_restricted", _dropped_capabilities, 22, "capabilities"),
    Rule("restrictedVolumes", _restricted_volumes, 0, "hostPathVolumes"),
    Rule("runAsNonRoot", _non_root),
    Rule("runAsUser", _user, 23),
    Rule("seccompProfile_restricted", _seccomp_restricted, 19, "seccompProfile"),
)
