"""Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs, CronJobs: defaults and validity (apps/v1,
batch/v1)."""

from typing import Any

from ambit.core.selector import Requirement
from ambit.local.apiserver.failures import Cause
from ambit.local.apiserver.metadata import invalid_value, required, unsupported
from ambit.local.apiserver.storage.store import Json
from ambit.local.apiserver.strategies.base import Cluster, Strategy, immutable, setdefaults
from ambit.local.apiserver.strategies.pods import default_pod_spec, validate_pod_spec
from ambit.objects.validation import show


def _template(spec: Json) -> Json:
    template: Json = spec.setdefault("template", {})
    template.setdefault("metadata", {})
    default_pod_spec(template.setdefault("spec", {}))
    return template


def selects(selector: Json, labels: Json) -> bool:
    """Whether a LabelSelector in JSON matches."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(
        Requirement(one["key"], one["operator"], tuple(one.get("values") or ())).matches(labels)
        for one in selector.get("matchExpressions") or ()
    )


class Workload(Strategy):
    """Kinds with a selector and a template."""

    replicated = True
    selector_required = True
    policies: tuple[str, ...] = ("Always",)

    def default(self, body: Json) -> None:
        spec = body.setdefault("spec", {})
        if self.replicated:
            setdefaults(spec, {"replicas": 1})
        self.default_spec(spec)
        _template(spec)

    def default_spec(self, spec: Json) -> None:
        """Defaults besides replicas and template."""

    def create(self, cluster: Cluster, body: Json) -> None:
        body["status"] = {"replicas": 0} if self.replicated else {}

    def validate(self, body: Json, old: Json | None) -> list[Cause]:
        spec = body["spec"]
        causes = validate_pod_spec(spec["template"].get("spec"), "spec.template.spec")
        replicas = spec.get("replicas")
        if replicas is not None and replicas < 0:
            causes.append(invalid_value("spec.replicas", replicas, "must be greater than or equal to 0"))
        policy = spec["template"]["spec"].get("restartPolicy")
        if policy not in self.policies:
            causes.append(unsupported("spec.template.spec.restartPolicy", policy, self.policies))
        if self.selector_required:
            causes += _validate_selector(spec)
            if old is not None:
                causes += immutable("spec.selector", spec.get("selector"), old["spec"].get("selector"))
        return causes


def _validate_selector(spec: Json) -> list[Cause]:
    selector = spec.get("selector")
    if not selector:
        return [required("spec.selector")]
    labels = spec["template"]["metadata"].get("labels") or {}
    if not selects(selector, labels):
        rule = "`selector` does not match template `labels`"
        message = f"Invalid value: {show(labels)}: {rule}"
        return [Cause("FieldValueInvalid", message, "spec.template.metadata.labels")]
    return []


def _rolling(strategy: Json, key: str, values: dict[str, Any]) -> None:
    setdefaults(strategy, {"type": "RollingUpdate"})
    if strategy["type"] == "RollingUpdate":
        setdefaults(strategy, {key: {}})
        setdefaults(strategy[key], values)


class Deployments(Workload):
    def default_spec(self, spec: Json) -> None:
        setdefaults(spec, {"revisionHistoryLimit": 10, "progressDeadlineSeconds": 600, "strategy": {}})
        _rolling(spec["strategy"], "rollingUpdate", {"maxUnavailable": "25%", "maxSurge": "25%"})

    def create(self, cluster: Cluster, body: Json) -> None:
        body["status"] = {}


class StatefulSets(Workload):
    def default_spec(self, spec: Json) -> None:
        setdefaults(
            spec,
            {
                "podManagementPolicy": "OrderedReady",
                "revisionHistoryLimit": 10,
                "updateStrategy": {},
                "serviceName": "",
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            },
        )
        _rolling(spec["updateStrategy"], "rollingUpdate", {"partition": 0})


class DaemonSets(Workload):
    replicated = False

    def default_spec(self, spec: Json) -> None:
        setdefaults(spec, {"revisionHistoryLimit": 10, "updateStrategy": {}})
        _rolling(spec["updateStrategy"], "rollingUpdate", {"maxUnavailable": 1, "maxSurge": 0})

    def create(self, cluster: Cluster, body: Json) -> None:
        counts = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")
        body["status"] = dict.fromkeys(counts, 0)


class ReplicationControllers(Workload):
    selector_required = False

    def default_spec(self, spec: Json) -> None:
        labels = spec.setdefault("template", {}).setdefault("metadata", {}).get("labels")
        if labels:
            setdefaults(spec, {"selector": labels})


class Jobs(Workload):
    replicated = False
    selector_required = False
    policies = ("OnFailure", "Never")

    def default_spec(self, spec: Json) -> None:
        setdefaults(
            spec,
            {
                "completions": spec.get("parallelism", 1) if "parallelism" not in spec else None,
                "parallelism": 1,
                "backoffLimit": 6,
                "completionMode": "NonIndexed",
                "suspend": False,
                "manualSelector": False,
                "podReplacementPolicy": "TerminatingOrFailed",
            },
        )
        if spec["completions"] is None:
            del spec["completions"]

    def create(self, cluster: Cluster, body: Json) -> None:
        body["status"] = {}
        if body["spec"].get("manualSelector"):
            return
        uid, name = body["metadata"]["uid"], body["metadata"]["name"]
        names = {"job-name": name, "controller-uid": uid}
        labels = {**names, **{f"batch.kubernetes.io/{key}": value for key, value in names.items()}}
        metadata = body["spec"]["template"]["metadata"]
        metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
        body["spec"]["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}


class CronJobs(Strategy):
    def default(self, body: Json) -> None:
        spec = body.setdefault("spec", {})
        setdefaults(
            spec,
            {
                "concurrencyPolicy": "Allow",
                "suspend": False,
                "successfulJobsHistoryLimit": 3,
                "failedJobsHistoryLimit": 1,
            },
        )
        _template(spec.setdefault("jobTemplate", {}).setdefault("spec", {}))

    def create(self, cluster: Cluster, body: Json) -> None:
        body["status"] = {}

    def validate(self, body: Json, old: Json | None) -> list[Cause]:
        if not body["spec"].get("schedule"):
            return [required("spec.schedule")]
        return []
