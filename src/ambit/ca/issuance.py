"""Who may have a certificate for which identity. Pure; refusals are texts.

A node agent asks for the identities of the pods it carries, so it gets exactly those that have an enrolled
pod on its own node: a node that is taken over can speak for its own pods and for nobody else. Any other
caller may have its own identity only.
"""

from collections.abc import Iterable

import msgspec

from ambit.core.identity import Identity, TrustDomains


class Caller(msgspec.Struct, frozen=True):
    """Who holds a token: a service account, and the pod and node the token is bound to (empty: not bound)."""

    namespace: str
    service_account: str
    pod: str = ""
    pod_uid: str = ""
    node: str = ""

    def __str__(self) -> str:
        where = f" on {self.node}" if self.node else ""
        return f"{self.namespace}/{self.service_account} ({self.pod or 'no pod'}{where})"


class PodFacts(msgspec.Struct, frozen=True):
    """What matters of a pod. `finished`: its phase is terminal. `enrolled`: the mesh captures it or is to."""

    namespace: str
    service_account: str
    node: str
    uid: str = ""
    finished: bool = False
    enrolled: bool = False


def check_caller(caller: Caller, pod: PodFacts | None) -> str | None:
    """Why the pod that a token is bound to does not stand behind it, or None. `pod` is the pod of that
    name.
    """
    if not caller.pod or not caller.pod_uid:
        return "the token is not bound to a pod"
    if pod is None or pod.uid != caller.pod_uid:
        return "the pod of the token does not exist"
    if pod.finished:
        return "the pod of the token has ended"
    if pod.service_account != caller.service_account or pod.namespace != caller.namespace:
        return "the pod of the token runs as another service account"
    if caller.node and pod.node != caller.node:
        return f"the token says node {caller.node!r}, its pod runs on {pod.node!r}"
    return None


def may_issue(
    caller: Caller,
    identity: Identity,
    pods: Iterable[PodFacts],
    *,
    trust_domains: TrustDomains,
    node_accounts: frozenset[tuple[str, str]],
) -> str | None:
    """Why this caller may not have a certificate for this identity, or None.

    `caller.node` must be the node where the caller's pod was found to run (see `check_caller`); `pods` are
    candidates; those of other nodes or accounts do not count.
    """
    if identity.trust_domain not in trust_domains:
        return f"trust domain {identity.trust_domain!r} is not ours ({', '.join(map(repr, trust_domains))})"
    if (caller.namespace, caller.service_account) not in node_accounts:
        if (identity.namespace, identity.service_account) == (caller.namespace, caller.service_account):
            return None
        return "the caller is no node agent and may have only its own identity"
    if not caller.node:
        return "the node of the caller is not known"
    for pod in pods:
        if (
            (pod.namespace, pod.service_account) == (identity.namespace, identity.service_account)
            and pod.node == caller.node
            and pod.enrolled
            and not pod.finished
        ):
            return None
    return f"no enrolled pod with this service account runs on node {caller.node!r}"
