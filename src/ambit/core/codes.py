"""The registry of findings: every code, what it means, an example, and what to do.

A code is never reused and never changes its meaning. `docs/findings.md` is written from this (tested),
and so is `ambit explain AMBnnnn`. Groups: 00 any object, 02 policy, 03 services, 04 gateways
and routes.
"""

import msgspec


class Code(msgspec.Struct, frozen=True):
    """`meaning` and `repair` are sentences; `example` is the smallest YAML or text that shows it."""

    code: str
    title: str
    meaning: str
    example: str
    repair: str


_ALL = (
    Code(
        "AMB0001",
        "Object could not be compiled",
        "The compiler failed on this object. Its former result stays in force; a policy denies. "
        "Others are untouched.",
        "status.podIP: not-an-address",
        "Correct the value that the text names. If the object is valid Kubernetes, this is a fault "
        "of ambit: report it.",
    ),
    Code(
        "AMB0002",
        "Object does not fit its schema",
        "A field has the wrong type, so the object could not be read. A policy of it is closed: an "
        "ALLOW allows nothing, "
        "a DENY denies everything, a PeerAuthentication is STRICT.",
        "spec.rules[0].to[0].operation.ports: [8080]   # numbers instead of texts",
        "Correct the field that the text names; `kubectl explain` shows its type.",
    ),
    Code(
        "AMB0003",
        "Field that does not exist",
        "This version knows no field of that name. It is left out and the rest of the object counts, so a policy "
        "without its selector is for the whole namespace. API servers refuse such an object or drop the field; "
        "files are told by this finding.",
        "spec.selectr: {matchLabels: {app: web}}   # selector",
        "Correct the name. `kubectl explain authorizationpolicy.spec` lists the fields.",
    ),
    Code(
        "AMB0201",
        "ALLOW rule needs a waypoint",
        "The rule uses HTTP attributes, which node proxies cannot see. It is left out there, so it "
        "allows nothing.",
        "rules: [{to: [{operation: {methods: [GET]}}]}]",
        "Use principals, namespaces and ports instead of HTTP attributes. "
        "This version's waypoints enforce no policies.",
    ),
    Code(
        "AMB0202",
        "DENY rule is stricter than written",
        "The rule uses HTTP attributes, which node proxies cannot see. It denies there without "
        "regard to them.",
        "action: DENY\nrules: [{to: [{operation: {ports: ['80'], paths: [/admin]}}]}]",
        "Use principals, namespaces and ports instead of HTTP attributes. "
        "This version's waypoints enforce no policies.",
    ),
    Code(
        "AMB0203",
        "Action is not enforced on connections",
        "CUSTOM and AUDIT need a proxy that sees requests. Node proxies do not enforce this policy.",
        "action: CUSTOM",
        "Write it as ALLOW or DENY. This version's waypoints enforce no policies.",
    ),
    Code(
        "AMB0204",
        "Dry run",
        "The annotation istio.io/dry-run makes node proxies record what the policy would decide, "
        "without doing it. A "
        "value that is neither true nor false counts as false.",
        'metadata: {annotations: {istio.io/dry-run: "true"}}',
        "Remove the annotation to enforce the policy.",
    ),
    Code(
        "AMB0205",
        "Selector and target together",
        "Only one of selector, targetRef and targetRefs may be given. The policy is closed until then.",
        "selector: {matchLabels: {app: web}}\ntargetRefs: [{kind: Service, name: web}]",
        "Keep the selector for node proxies, or targetRefs for waypoints; make two policies for both.",
    ),
    Code(
        "AMB0206",
        "Target of a waypoint",
        "A policy with targetRefs is for the waypoint of its target, and waypoints do not enforce policies yet. "
        "What a waypoint serves and such a policy names is closed: every connection to it is refused. Without a "
        "waypoint the policy protects nothing.",
        "targetRefs: [{kind: Service, name: web}]",
        "Use a selector, which node proxies enforce, and leave out HTTP attributes.",
    ),
    Code(
        "AMB0210",
        "Malformed port",
        "A port must be a number from 1 to 65535, as text. The rule is closed; a portLevelMtls "
        "entry counts as STRICT.",
        "ports: [http]",
        "Write the number of the pod's port.",
    ),
    Code(
        "AMB0212",
        "Malformed address",
        "An address block must be an IP address or a CIDR. The rule is closed: ALLOW allows "
        "nothing, DENY denies everything.",
        "ipBlocks: [10.0.0/8]",
        "Write a full address: 10.0.0.0/8.",
    ),
    Code(
        "AMB0213",
        "Malformed name",
        "A principal is written without spiffe://, a service account as <account> or "
        "<namespace>/<account>, and no name is "
        "empty. The rule is closed.",
        "principals: [spiffe://cluster.local/ns/a/sa/b]",
        "Write cluster.local/ns/a/sa/b.",
    ),
    Code(
        "AMB0214",
        "Condition without values",
        "A source, operation or condition says nothing, so nothing would match. The rule is closed.",
        "from: [{source: {}}]",
        "Give it a value, or remove the entry if everything is meant.",
    ),
    Code(
        "AMB0215",
        "Unknown action",
        "The action is none of ALLOW, DENY, CUSTOM and AUDIT. The policy allows nothing.",
        "action: BLOCK",
        "Write ALLOW or DENY.",
    ),
    Code(
        "AMB0216",
        "Unknown condition",
        "The key is not among Istio's conditions. The rule is closed.",
        "when: [{key: source.pod, values: [web-0]}]",
        "Use source.ip, source.namespace, source.principal, destination.ip or destination.port.",
    ),
    Code(
        "AMB0217",
        "Policy too large",
        "One policy may have 10,000 values: names, addresses and ports in all its rules, a rule without any counting "
        "as one. Each costs the proxy some 2 KiB for each pod that the policy is for. This one is closed: an ALLOW "
        "allows nothing, a DENY denies everything.",
        "rules: [{from: [{source: {namespaces: [team-1, team-2]}}]}]   # and 10,000 more",
        "Use prefixes or suffixes (`team-*`), or say who is allowed instead of who is not. Or divide it into several "
        "policies of one action, which count as one.",
    ),
    Code(
        "AMB0221",
        "Selector in the root namespace",
        "A PeerAuthentication in the root namespace is for the whole mesh; with a selector it "
        "selects nothing.",
        "metadata: {namespace: istio-system}\nspec: {selector: {matchLabels: {app: web}}}",
        "Move it to the namespace of the pods.",
    ),
    Code(
        "AMB0222",
        "Port levels without selector",
        "portLevelMtls counts only in a PeerAuthentication with a selector.",
        "spec: {portLevelMtls: {8080: {mode: PERMISSIVE}}}",
        "Add a selector for the pods that have this port.",
    ),
    Code(
        "AMB0223",
        "Hidden by an older policy",
        "One PeerAuthentication counts per mesh, namespace and workload: the oldest. This one does nothing.",
        "two PeerAuthentications without selector in one namespace",
        "Delete one of them.",
    ),
    Code(
        "AMB0224",
        "DISABLE turns nothing off",
        "In an ambient mesh the caller's node encrypts whenever the destination can decrypt. "
        "DISABLE only accepts plain text "
        "too, as PERMISSIVE does.",
        "mtls: {mode: DISABLE}",
        "Write PERMISSIVE; to leave the mesh, label the pod istio.io/dataplane-mode: none.",
    ),
    Code(
        "AMB0225",
        "Unknown mode",
        "The mode is none of UNSET, DISABLE, PERMISSIVE and STRICT. The policy counts as STRICT.",
        "mtls: {mode: ON}",
        "Write STRICT or PERMISSIVE.",
    ),
    Code(
        "AMB0301",
        "Host that nodes cannot serve",
        "Node proxies send connections by address. A host without addresses of its own (a wildcard to be resolved, "
        "resolution DYNAMIC_DNS) needs a proxy that sees names. Connections pass by as if it were not there.",
        "hosts: ['*.example.com']\nresolution: DNS",
        "List the hosts one by one, or give the entry endpoints. This version's waypoints do not resolve names.",
    ),
    Code(
        "AMB0302",
        "Malformed address of a service",
        "An address must be an IP address or a range (CIDR). This one is left out; the others count.",
        "addresses: [10.0.0/24]",
        "Write a full address: 10.0.0.0/24.",
    ),
    Code(
        "AMB0303",
        "Host of another ServiceEntry",
        "An older ServiceEntry of the namespace has this host. The older one counts, as a whole, for this host.",
        "hosts: [db.example.com]   # in two ServiceEntries of one namespace",
        "Keep the host in one of them; put all its ports and endpoints there.",
    ),
    Code(
        "AMB0304",
        "Endpoint that cannot be reached",
        "Nobody is sent to this endpoint; the others count.",
        "resolution: STATIC\nendpoints: [{address: db.example.com}]",
        "Use resolution DNS for names, and an IP address otherwise.",
    ),
    Code(
        "AMB0305",
        "Visibility that nodes cannot follow",
        "Node proxies show a host to everybody (`*`), to its own namespace (`.`) or to nobody (`~`). This one is shown "
        "to everybody.",
        "exportTo: [team-a]   # in another namespace",
        "Use one entry with exportTo ['.'] in each namespace that is to see the host.",
    ),
    Code(
        "AMB0306",
        "Host or address of somebody else",
        "The host is a name of a Service, of another namespace or of the cluster domain, or the address is a "
        "Service's or a pod's. It is left out, so nobody's traffic is taken; what else the entry says counts.",
        "metadata: {namespace: team-a}\nspec: {hosts: [web.team-b.svc.cluster.local]}",
        "Choose a host outside the cluster domain, or below the entry's own namespace (db.team-a.svc.cluster.local), "
        "and an address that nobody in the cluster has.",
    ),
    Code(
        "AMB0401",
        "Route that is not in force",
        "The route is not applied for this parent: the parent does not exist, has no waypoint, has routes of another "
        "kind, or no rule of the route can be carried out. Requests go where they would go without it.",
        "parentRefs: [{group: '', kind: Service, name: web}]   # web has no waypoint",
        "Do what the text says. For a waypoint: create a Gateway of class ambit-waypoint, and label the Service or its "
        "namespace istio.io/use-waypoint.",
    ),
    Code(
        "AMB0402",
        "Reference that leads nowhere",
        "A rule refers to a service that does not exist, has no such port, is of a kind that requests cannot be sent "
        "to, or is in a namespace that does not permit it. That share of the requests is answered with 500.",
        "backendRefs: [{name: web-v2, namespace: other, port: 80}]   # no ReferenceGrant in other",
        "Correct name and port. For another namespace create a ReferenceGrant there that names the route's kind and "
        "namespace, and the Service.",
    ),
    Code(
        "AMB0403",
        "Rule that is not as written",
        "A match or a filter of the rule cannot be carried out. Such a match is left out; requests that would meet "
        "such a filter are answered with 500. The other rules count.",
        "filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: Filter, name: mine}}]",
        "Take out what the text names, or write it in another way.",
    ),
    Code(
        "AMB0404",
        "Gateway that is not accepted",
        "A waypoint cannot be made as the Gateway asks. Without any good listener there is none, and connections of "
        "what is bound to it are refused.",
        "gatewayClassName: ambit-waypoint\nlisteners: [{name: mesh, port: 80, protocol: HTTP}]",
        "A waypoint needs one listener: name mesh, port 15008, protocol HBONE.",
    ),
    Code(
        "AMB0405",
        "Waypoint that is not there",
        "The object asks for a waypoint that does not exist, lets nobody of its namespace in, or does not take such "
        "traffic. In the first two cases connections are refused, in the last they pass without it.",
        "metadata: {labels: {istio.io/use-waypoint: waypoint}}   # no such Gateway",
        "Create the Gateway, permit the namespace in its listener's allowedRoutes, set istio.io/waypoint-for, or take "
        "the label away.",
    ),
)

CODES: dict[str, Code] = {each.code: each for each in _ALL}


def reference() -> str:
    """The Markdown of `docs/findings.md`."""
    head = (
        "# Findings\n\nWhat `ambit check`, `ambit compile` and status conditions say about objects. "
        "`ambit explain AMBnnnn` prints one of these.\n"
    )
    sections = (
        f"## {each.code}: {each.title}\n\n{each.meaning}\n\n```yaml\n{each.example}\n```\n\n{each.repair}\n"
        for each in CODES.values()
    )
    return "\n".join((head, *sections))
