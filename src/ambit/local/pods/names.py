"""The small files every container gets: /etc/hosts, /etc/resolv.conf, /etc/hostname. Pure.

Source: kubernetes.io/docs/concepts/services-networking/dns-pod-service.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ambit.core.names import CLUSTER_DOMAIN
from ambit.local.layout import DNS_SERVICE

RESOLVER_OPTIONS = "ndots:5 timeout:1 attempts:5"
"""The kubelet's `ndots:5`; and ask again soon, for a question that nobody takes while the node agent restarts."""


def hostname_of(pod: Mapping[str, Any]) -> str:
    """`spec.hostname`, else the pod's name cut to what the kernel takes; a host network pod is called as its node."""
    if pod["spec"].get("hostNetwork"):
        return str(pod["spec"]["nodeName"])
    return str(pod["spec"].get("hostname") or pod["metadata"]["name"])[:63].rstrip("-.")


def hosts_file(pod: Mapping[str, Any], addresses: Sequence[str]) -> str:
    spec, name = pod["spec"], hostname_of(pod)
    lines = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
    ]
    full = name
    if spec.get("subdomain"):
        full = f"{name}.{spec['subdomain']}.{pod['metadata']['namespace']}.svc.{CLUSTER_DOMAIN}\t{name}"
    lines += [f"{address}\t{full}" for address in addresses]
    for alias in spec.get("hostAliases") or ():
        lines.append(f"{alias['ip']}\t" + "\t".join(alias.get("hostnames") or ()))
    return "\n".join(lines) + "\n"


def resolver_file(pod: Mapping[str, Any], host_file: str) -> str:
    """`host_file` is the host's own resolv.conf, used for dnsPolicy Default and for host network pods."""
    spec = pod["spec"]
    policy = spec.get("dnsPolicy") or "ClusterFirst"
    if policy == "Default":
        text = host_file
    elif policy == "None":
        text = ""
    else:
        # A node here is no machine with a resolver of its own: its pods use the cluster's, with or without saying so.
        namespace = pod["metadata"]["namespace"]
        search = f"{namespace}.svc.{CLUSTER_DOMAIN} svc.{CLUSTER_DOMAIN} {CLUSTER_DOMAIN}"
        text = f"search {search}\nnameserver {DNS_SERVICE}\noptions {RESOLVER_OPTIONS}\n"
    return _with_config(text, spec.get("dnsConfig") or {})


def _with_config(text: str, config: Mapping[str, Any]) -> str:
    lines = text.splitlines()
    lines += [f"nameserver {address}" for address in config.get("nameservers") or ()]
    searches = [word for line in lines if line.startswith("search ") for word in line.split()[1:]]
    searches += config.get("searches") or ()
    options = [word for line in lines if line.startswith("options ") for word in line.split()[1:]]
    for option in config.get("options") or ():
        value = option.get("value")
        options = [word for word in options if word.partition(":")[0] != option["name"]]
        options.append(option["name"] if value in {None, ""} else f"{option['name']}:{value}")
    rest = [line for line in lines if not line.startswith(("search ", "options "))]
    if searches:
        rest.append("search " + " ".join(dict.fromkeys(searches)))
    if options:
        rest.append("options " + " ".join(options))
    return "\n".join(rest) + "\n"
