"""What `ambit check` looks at: each check has an id, one sentence, and what to type when it does not hold."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from ambit.cli import authority
from ambit.cli.enrolment import (
    enrolment_labels,
    excluded_namespaces,
    is_captured,
    should_be_captured,
    unenrolled_policies,
    why_not_captured,
)
from ambit.cli.inactive import inactive_kinds, ingresses_without_effect, is_laptop, without_effect
from ambit.cli.live_objects import mesh_settings
from ambit.cli.mesh import CONTROL_PLANES, NODE_PROXIES, ask, in_charge, node_of, system_pods
from ambit.cli.policy_references import Surroundings, unknown_references
from ambit.cli.proxies import connected_proxies
from ambit.cli.ztunnels import is_agent, node_proxies, ztunnel_pods
from ambit.core.errors import AmbitError
from ambit.core.finding import Level
from ambit.core.identity import Identity
from ambit.core.names import (
    CONTROL_DEBUG_PORT,
    SYSTEM_NAMESPACE,
)
from ambit.kube.client import Client, Object
from ambit.kube.conditions import has_condition
from ambit.kube.resource import (
    AUTHORIZATION_POLICIES,
    CUSTOM_RESOURCE_DEFINITIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    GATEWAY_CLASSES,
    INGRESS_CLASSES,
    INGRESSES,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    PEER_AUTHENTICATIONS,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICES,
)
from ambit.objects.decoding import PROJECTIONS

Result = Literal["success", "warning", "error"]
OBJECTS = "objects"
"""The category of checks of what users have written; the others are of the mesh itself."""


class Outcome(msgspec.Struct, frozen=True):
    """One line of `ambit check`. `error` has one line for each thing that is wrong."""

    category: str
    id: str
    description: str
    result: Result
    error: str = ""
    hint: str = ""


class Check(msgspec.Struct, frozen=True):
    """`run` returns what is wrong, one sentence each; nothing means that it holds."""

    category: str
    id: str
    description: str
    hint: str
    run: Callable[[Client], Awaitable[list[str]]]
    is_fatal: bool = False
    is_warning: bool = False


async def api_answers(client: Client) -> list[str]:
    """A check's `run`: nothing is wrong when the API server is ready."""
    await client.raw("GET", "/readyz")
    return []


async def _nodes_ready(client: Client) -> list[str]:
    return [
        f"node {node['metadata']['name']} is not Ready"
        for node in await client.list(NODES)
        if not has_condition(node, "Ready")
    ]


async def _crds_established(client: Client) -> list[str]:
    wanted = {resource for resource in PROJECTIONS if resource.endswith(".istio.io")}
    found = {crd["metadata"]["name"]: crd for crd in await client.list(CUSTOM_RESOURCE_DEFINITIONS)}
    return [
        *(f"CustomResourceDefinition {name} is missing" for name in sorted(wanted - set(found))),
        *(
            f"CustomResourceDefinition {name} is not established"
            for name in sorted(wanted & set(found))
            if not has_condition(found[name], "Established")
        ),
    ]


async def _control_ready(client: Client) -> list[str]:
    pods = await system_pods(client, CONTROL_PLANES)
    return _not_ready(pods) if pods else ["no control plane pod runs"]


async def _proxies_ready(client: Client) -> list[str]:
    pods = await node_proxies(client)
    foreign = {node_of(pod) for pod in pods if not is_agent(pod)}
    parts = await client.list(DAEMON_SETS, SYSTEM_NAMESPACE, label_selector=NODE_PROXIES)
    nodes = [each for each in await client.list(NODES) if each["metadata"]["name"] not in foreign]
    missing = without_proxy(nodes, parts, {node_of(pod) for pod in pods if is_agent(pod)})
    silent = [
        f"the agent on {node_of(pod)} does not answer: {answer.message}"
        for pod, answer in await _ask_nodes(
            client, "/status", [pod for pod in pods if has_condition(pod, "Ready") and is_agent(pod)]
        )
        if isinstance(answer, AmbitError)
    ]
    return [*(f"node {node} has no node proxy" for node in missing), *_not_ready(pods), *silent]


async def _ask_nodes(client: Client, path: str, pods: list[Object]) -> list[tuple[Object, Any]]:
    """What each agent answers: JSON, or why it does not."""

    async def answer(pod: Object) -> Any:
        try:
            return await ask(client, pod, path)
        except AmbitError as problem:
            return problem

    return list(zip(pods, await asyncio.gather(*map(answer, pods)), strict=True))


async def _nodes_that_answer(client: Client, path: str) -> list[tuple[Object, Any]]:
    """Without those that do not: `proxies-ready` has told of them."""
    pods = in_charge(await system_pods(client, NODE_PROXIES))
    return [each for each in await _ask_nodes(client, path, pods) if not isinstance(each[1], AmbitError)]


def without_proxy(nodes: list[Object], daemon_sets: list[Object], served: set[str]) -> list[str]:
    """Names of nodes that lack a proxy, of those where one is to run: selectors, affinity and taints may leave nodes
    out of the DaemonSet, and the number that it wants respects all of them."""
    wanted = sum((each.get("status") or {}).get("desiredNumberScheduled", 0) for each in daemon_sets)
    if wanted <= len(served):
        return []
    selectors = [each["spec"]["template"]["spec"].get("nodeSelector") or {} for each in daemon_sets]
    return sorted(
        str(node["metadata"]["name"])
        for node in nodes
        if node["metadata"]["name"] not in served
        and any(each.items() <= (node["metadata"].get("labels") or {}).items() for each in selectors)
    )


async def _proxies_in_sync(client: Client) -> list[str]:
    problems = []
    for pod in await system_pods(client, CONTROL_PLANES):
        for entry in await ask(client, pod, "/debug/syncz", CONTROL_DEBUG_PORT):
            for kind, state in entry.get("types", {}).items():
                if state.get("error"):
                    names = " ".join(state.get("rejected") or ())
                    problems.append(
                        f"{entry['node']} rejected {kind} {names}".rstrip() + f": {state['error']}"
                    )
    for (_, name), entry in (await connected_proxies(client)).items():
        problems += [
            f"{name} of Gateway {entry['gateway']} rejected {kind}: {state['error']}"
            for kind, state in entry["types"].items()
            if state.get("error")
        ]
    return problems


async def _authority_sound(client: Client) -> list[str]:
    return list(authority.problems(await authority.read_trust(client), datetime.now(UTC).timestamp()))


async def _certificates_valid(client: Client) -> list[str]:
    problems = []
    pods = [*in_charge(await system_pods(client, NODE_PROXIES)), *await ztunnel_pods(client)]
    for pod, dump in await _ask_nodes(client, "/config_dump", pods):
        if isinstance(dump, AmbitError):
            continue  # `proxies-ready` has told of it
        for certificate in dump["certificates"]:
            identity, state = certificate["identity"], certificate["state"]
            if state != "Available":
                problems.append(f"{identity} on {node_of(pod)}: {state}")
            problems += [
                f"{identity} on {node_of(pod)} has expired"
                for part in certificate["certChain"][:1]
                if datetime.fromisoformat(part["expirationTime"]) <= datetime.now(UTC)
            ]
    return problems


async def _objects_seen(client: Client) -> list[str]:
    problems = []
    for pod in await system_pods(client, CONTROL_PLANES):
        told = await ask(client, pod, "/debug/findings", CONTROL_DEBUG_PORT)
        problems += [
            f"{pod['metadata']['name']} may not read {kind}: {reason}"
            for kind, reason in told.get("refused", {}).items()
        ]
    return problems


async def _objects_in_force(client: Client) -> list[str]:
    told = await _told(client)
    unread = sorted(told["undecodable"].items())
    return [*_of_level(told, Level.ERROR), *(f"{key} cannot be read: {problem}" for key, problem in unread)]


async def _objects_understood(client: Client) -> list[str]:
    return _of_level(await _told(client), Level.WARNING)


async def _told(client: Client) -> dict[str, Any]:
    """The findings of the first control plane: each of them sees the same objects."""
    for pod in (await system_pods(client, CONTROL_PLANES))[:1]:
        told: dict[str, Any] = await ask(client, pod, "/debug/findings", CONTROL_DEBUG_PORT)
        return told
    return {"findings": [], "undecodable": {}}


def _of_level(told: dict[str, Any], level: Level) -> list[str]:
    return [_finding(each) for each in told["findings"] if each["level"] == level]


async def _objects_effective(client: Client) -> list[str]:
    definitions = await client.list(CUSTOM_RESOURCE_DEFINITIONS)
    kinds = list(inactive_kinds(definitions))
    kinds += [NETWORK_POLICIES] if is_laptop(await client.list(NODES)) else []
    found = await asyncio.gather(*(client.list(kind) for kind in kinds))
    has_classes = any(each["metadata"]["name"] == GATEWAY_CLASSES.qualified for each in definitions)
    gateway_classes = await client.list(GATEWAY_CLASSES) if has_classes else []
    classes = {each["metadata"]["name"]: each for each in gateway_classes}
    lines = [
        line
        for kind, objects in zip(kinds, found, strict=True)
        for line in without_effect(kind, objects, classes)
    ]
    ingresses = await client.list(INGRESSES)
    return [*lines, *ingresses_without_effect(ingresses, await client.list(INGRESS_CLASSES))]


async def _policies_fit(client: Client) -> list[str]:
    policies = [
        policy
        for kind in (AUTHORIZATION_POLICIES, PEER_AUTHENTICATIONS)
        for policy in await client.list(kind)
    ]
    if not policies:
        return []
    namespaces = await client.list(NAMESPACES)
    around = Surroundings(
        frozenset(each["metadata"]["name"] for each in namespaces),
        frozenset(
            f"{each['metadata']['namespace']}/{each['metadata']['name']}"
            for each in await client.list(SERVICE_ACCOUNTS)
        ),
        await _trust_domains(client),
        await client.list(PODS),
        await client.list(SERVICES),
    )
    return [*unenrolled_policies(policies, namespaces, around), *unknown_references(policies, around)]


async def _labels_understood(client: Client) -> list[str]:
    pods = await client.list(PODS)
    return [*enrolment_labels([*await client.list(NAMESPACES), *pods]), *excluded_namespaces(pods)]


async def _trust_domains(client: Client) -> frozenset[str]:
    """Of the identities that a node proxy has, the first one that answers, and what means the same; none when it has
    none."""
    for pod in in_charge(await system_pods(client, NODE_PROXIES)):
        try:
            dump = await ask(client, pod, "/config_dump")
        except AmbitError:
            continue  # `proxies-ready` has told of it
        uris = [str(certificate["identity"]) for certificate in dump["certificates"]]
        aliases = (await mesh_settings(client)).trust_domain_aliases if uris else ()
        return frozenset((*(Identity.parse(uri).trust_domain for uri in uris), *aliases))
    return frozenset()


def _finding(found: dict[str, Any]) -> str:
    origin = found["origin"]
    name = f"{origin['kind']} {origin['namespace']}/{origin['name']}"
    return f"{found['code']} {name} {found['path']}: {found['text']}"


async def _enrolled_captured(client: Client) -> list[str]:
    namespaces = {
        each["metadata"]["name"]: each["metadata"].get("labels") or {}
        for each in await client.list(NAMESPACES)
    }
    return [
        f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']} runs but is not captured"
        + (f": {reason}" if (reason := why_not_captured(pod)) else "")
        for pod in await client.list(PODS, field_selector="status.phase=Running")
        if should_be_captured(pod, namespaces.get(pod["metadata"]["namespace"], {})) and not is_captured(pod)
    ]


async def _destinations_served(client: Client) -> list[str]:
    return [
        f"pod {'/'.join(key.split('/')[:2])} on {node_of(pod)} has used so many destinations that new ones are refused"
        for pod, status in await _nodes_that_answer(client, "/status")
        for key in status["capped"]
    ]


async def _states_stored(client: Client) -> list[str]:
    return [
        f"node {node_of(pod)} keeps changes in memory only: {status['unstored']}"
        for pod, status in await _nodes_that_answer(client, "/status")
        if status.get("unstored")
    ]


async def _no_other_mesh(client: Client) -> list[str]:
    """Two meshes fight for each pod's traffic, and for the ConfigMap with the root certificate."""
    return [
        f"{kind.kind} {each['metadata']['namespace']}/{each['metadata']['name']} belongs to another mesh"
        for kind, selector in (
            (DAEMON_SETS, "k8s-app=istio-cni-node"),
            (DAEMON_SETS, "app=ztunnel"),
            (DEPLOYMENTS, "app=istiod"),
        )
        for each in await client.list(kind, label_selector=selector)
        if each["metadata"]["namespace"] != SYSTEM_NAMESPACE
    ]


def _not_ready(pods: list[dict[str, Any]]) -> list[str]:
    return [
        f"pod {pod['metadata']['name']} on {node_of(pod)} is {pod.get('status', {}).get('phase', 'unknown')}, not ready"
        for pod in pods
        if not has_condition(pod, "Ready")
    ]


def _made_out(hint: str, problems: list[str]) -> str:
    """A hint's `CODE` becomes the codes of the problems, its `namespace NAME` the object that the first one names."""
    codes = dict.fromkeys(each.partition(" ")[0] for each in problems if each.startswith("AMB"))
    match problems[0].split(" ", 2):
        case ["Namespace", name, *_]:
            hint = hint.replace("namespace NAME", f"namespace {name}")
        case ["Pod", key, *_]:
            where, _, name = key.partition("/")
            hint = hint.replace("namespace NAME", f"pod {name} -n {where}")
        case _:
            pass
    return hint.replace("CODE", "`, `ambit explain ".join(codes)) if codes else hint


NO_OTHER_MESH = Check(
    "other software", "no-other-mesh", "no other mesh is installed",
    "uninstall one of them: two meshes cannot share pods", _no_other_mesh,
)  # fmt: skip
LOGS = "type `kubectl -n ambit-system logs -l {} --tail 20`"
CHECKS = (
    Check(
        "cluster", "api-reachable", "the API server answers",
        "type `ambit up`, or check --kubeconfig", api_answers, is_fatal=True,
    ),
    Check("cluster", "nodes-ready", "all nodes are ready", "type `kubectl describe nodes`", _nodes_ready),
    Check(
        "cluster", "crds", "Istio's policy kinds are installed",
        "type `ambit install`; on a laptop `ambit down; ambit up`", _crds_established,
    ),
    Check(
        "control plane", "control-ready", "the control plane is ready", LOGS.format("app=istiod"), _control_ready
    ),
    Check(
        "control plane", "objects-seen", "the control plane may read what it needs",
        "type `ambit install` again, which restores its ClusterRole", _objects_seen,
    ),
    Check(
        "control plane", "authority", "who signs certificates can go on", "type `ambit certs root`", _authority_sound,
        is_warning=True,
    ),
    Check("node proxies", "proxies-ready", "each node has a ready proxy", LOGS.format("app=ztunnel"), _proxies_ready),
    Check(
        "node proxies", "proxies-in-sync", "no proxy rejects its configuration", "type `ambit ps -o json`",
        _proxies_in_sync,
    ),
    Check(
        "node proxies", "states-stored", "each node stores what it is sent",
        "free space on the disk of the node's state", _states_stored,
    ),
    Check(
        "workloads", "certificates", "every identity has a valid certificate", "type `ambit certs`", _certificates_valid
    ),
    Check(
        "workloads", "captured", "every enrolled pod is captured", "type `kubectl describe pod` and see its events",
        _enrolled_captured,
    ),
    Check(
        "workloads", "labels-understood", "every label that enrols pods means something",
        "type `kubectl label --overwrite namespace NAME istio.io/dataplane-mode=ambient`", _labels_understood,
        is_warning=True,
    ),
    Check(
        "workloads", "destinations", "no pod has too many destinations",
        "it begins anew once an hour; `kubectl delete pod` does so at once", _destinations_served, is_warning=True,
    ),
    Check(
        OBJECTS, "objects-in-force", "every object of the mesh is in force",
        "type `ambit explain CODE`", _objects_in_force,
    ),
    Check(
        OBJECTS, "objects-understood", "every object of the mesh is understood as written",
        "type `ambit explain CODE`", _objects_understood, is_warning=True,
    ),
    Check(
        OBJECTS, "objects-effective", "no object is of a kind without effect",
        "do not rely on them; see docs/limits.md", _objects_effective, is_warning=True,
    ),
    Check(
        OBJECTS, "policies-fit", "every policy and every name in it fits something",
        "type `kubectl edit`, or create what is named; see docs/policy.md", _policies_fit, is_warning=True,
    ),
    NO_OTHER_MESH,
)  # fmt: skip


async def run_checks(client: Client, checks: Iterable[Check] = CHECKS) -> list[Outcome]:
    """All of them in order; a fatal one that fails ends the list."""
    outcomes = []
    for check in checks:
        try:
            problems = await check.run(client)
        except AmbitError as problem:
            problems = [problem.message]
        result: Result = "success" if not problems else "warning" if check.is_warning else "error"
        outcomes.append(
            Outcome(
                check.category,
                check.id,
                check.description,
                result,
                "\n".join(problems),
                _made_out(check.hint, problems) if problems else "",
            )
        )
        if problems and check.is_fatal:
            break
    return outcomes
