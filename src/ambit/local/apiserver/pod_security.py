"""The Pod Security Standards, as namespaces ask for them by `pod-security.kubernetes.io/` labels. Pure.

Rules and messages: k8s.io/docs/concepts/security/pod-security-standards, and the admission plugin of Kubernetes 1.34.
A rule of level restricted takes the place of the one of level baseline that it contains. Mode `audit` has no effect,
since there is no audit log.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ambit.local.apiserver.pod_security_rules import BASELINE, RESTRICTED, Rule

Spec = Mapping[str, Any]

PREFIX = "pod-security.kubernetes.io/"
MODES = ("enforce", "audit", "warn")
LEVELS = ("privileged", "baseline", "restricted")
_LATEST = 1_000_000
_VERSION = re.compile(r"v1\.(0|[1-9][0-9]*)")
_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "pods": (),
    "replicationcontrollers": ("spec", "template"),
    "podtemplates": ("template",),
    "replicasets.apps": ("spec", "template"),
    "deployments.apps": ("spec", "template"),
    "statefulsets.apps": ("spec", "template"),
    "daemonsets.apps": ("spec", "template"),
    "jobs.batch": ("spec", "template"),
    "cronjobs.batch": ("spec", "jobTemplate", "spec", "template"),
}


class Policy(msgspec.Struct, frozen=True):
    """A level and the version of its rules, for one mode."""

    level: str = "privileged"
    version: str = "latest"

    def __str__(self) -> str:
        return f"{self.level}:{self.version}"


def policy_of(labels: Mapping[str, str], mode: str) -> Policy:
    """What a namespace asks for. A level that does not exist is `restricted` to enforce, else `privileged`."""
    level = labels.get(PREFIX + mode, "privileged")
    if level not in LEVELS:
        level = "restricted" if mode == "enforce" else "privileged"
    version = labels.get(f"{PREFIX}{mode}-version", "latest")
    return Policy(level, version if _VERSION.fullmatch(version) else "latest")


def wrong_labels(labels: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Labels with a value that does not exist: label, value, what it must be."""
    for mode in MODES:
        level, version = labels.get(PREFIX + mode), labels.get(f"{PREFIX}{mode}-version")
        if level is not None and level not in LEVELS:
            yield PREFIX + mode, level, f"must be one of {', '.join(LEVELS)}"
        if version is not None and version != "latest" and not _VERSION.fullmatch(version):
            yield f"{PREFIX}{mode}-version", version, 'must be "latest" or "v1.x"'


def pod_of(storage: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The pod, or the template of pods, in an object of a kind; None where there is none."""
    path = _TEMPLATES.get(storage)
    if path is None:
        return None
    found: Any = body
    for name in path:
        found = (found or {}).get(name)
    return found if isinstance(found, dict) and isinstance(found.get("spec"), dict) else None


def violations(policy: Policy, pod: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Reason and detail of each rule that a pod breaks."""
    version = int(policy.version[3:]) if policy.version != "latest" else _LATEST
    rules: Sequence[Rule] = ()
    if policy.level == "baseline":
        rules = BASELINE
    elif policy.level == "restricted":
        replaced = {rule.replaces for rule in RESTRICTED if rule.since <= version}
        rules = [*(rule for rule in BASELINE if rule.name not in replaced), *RESTRICTED]
    return [
        found for rule in rules if rule.since <= version and (found := rule.check(pod, version)) is not None
    ]


def describe(found: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{reason} ({detail})" if detail else reason for reason, detail in found)


def is_significant(pod: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether an update changes what rules look at: images and containers, and profiles in annotations."""
    return _looked_at(pod) != _looked_at(old)


def _looked_at(pod: Mapping[str, Any]) -> tuple[object, object]:
    spec = pod["spec"]
    annotations = pod.get("metadata", {}).get("annotations") or {}
    images = [
        [(each.get("name"), each.get("image")) for each in spec.get(kind) or ()]
        for kind in ("initContainers", "containers", "ephemeralContainers")
    ]
    profiles = {name: value for name, value in annotations.items() if "apparmor" in name or "seccomp" in name}
    return images, profiles


def warn_of_existing(namespace: str, policy: Policy, pods: Sequence[Mapping[str, Any]]) -> list[str]:
    """Warnings when a namespace starts to enforce a level that pods in it violate: these run on."""
    by_reason: dict[str, list[str]] = {}
    for pod in pods:
        found = violations(policy, pod)
        if found:
            reasons = ", ".join(reason for reason, _ in found)
            by_reason.setdefault(reasons, []).append(pod["metadata"]["name"])
    if not by_reason:
        return []
    lines = [f"{_first_of(sorted(names))}: {reasons}" for reasons, names in by_reason.items()]
    title = f'existing pods in namespace "{namespace}" violate the new PodSecurity enforce level "{policy}"'
    return [title, *sorted(lines)]


def _first_of(names: Sequence[str]) -> str:
    more = len(names) - 1
    return names[0] if not more else f"{names[0]} (and {more} other pod{'s' if more > 1 else ''})"


def is_stricter(new: Policy, old: Policy) -> bool:
    """Whether pods that `old` let in have to be looked at again."""
    if new.level == "privileged" or new == old:
        return False
    is_higher = LEVELS.index(new.level) > LEVELS.index(old.level)
    return is_higher or new.version != old.version
