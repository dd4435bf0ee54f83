"""Which rules belong to which kind, by storage name."""

from ambit.local.apiserver.strategies import others, pods, services, workloads
from ambit.local.apiserver.strategies.base import Strategy

STRATEGIES: dict[str, Strategy] = {
    "pods": pods.Pods(),
    "services": services.Services(),
    "namespaces": others.Namespaces(),
    "nodes": others.Nodes(),
    "configmaps": others.ConfigMaps(),
    "secrets": others.Secrets(),
    "replicationcontrollers": workloads.ReplicationControllers(),
    "deployments.apps": workloads.Deployments(),
    "replicasets.apps": workloads.Workload(),
    "statefulsets.apps": workloads.StatefulSets(),
    "daemonsets.apps": workloads.DaemonSets(),
    "jobs.batch": workloads.Jobs(),
    "cronjobs.batch": workloads.CronJobs(),
    "endpointslices.discovery.k8s.io": others.EndpointSlices(),
    "roles.rbac.authorization.k8s.io": others.Roles(),
    "clusterroles.rbac.authorization.k8s.io": others.Roles(),
    "rolebindings.rbac.authorization.k8s.io": others.Bindings(),
    "clusterrolebindings.rbac.authorization.k8s.io": others.Bindings(),
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": others.Webhooks(mutating=True),
    "validatingwebhookconfigurations.admissionregistration.k8s.io": others.Webhooks(mutating=False),
    "networkpolicies.networking.k8s.io": others.NetworkPolicies(),
    "customresourcedefinitions.apiextensions.k8s.io": others.Definitions(),
}
"""Kinds without an entry have the neutral rules of `Strategy`."""

NEUTRAL = Strategy()
