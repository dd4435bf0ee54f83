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
        "AMB0004",
        "Gateway of a class that nothing serves",
        "ambit has no class of that name, and no GatewayClass of that name is among the objects that were given. "
        "`ambit check` looks for GatewayClasses in the cluster.",
        "spec.gatewayClassName: istio-waypiont   # istio-waypoint",
        "Correct the name. If another controller serves the class, give its GatewayClass as well.",
    ),
    Code(
        "AMB0005",
        "Selector that fits nothing",
        "No pod, template of pods or WorkloadEntry in the namespace has these labels, so a policy protects nothing, "
        "and a Service has no endpoints. Nothing is said of a namespace without any such object.",
        "spec.selector: {matchLabels: {app: wbe}}   # the pods have app: web",
        "Correct the labels, or give the pods that they are for as well.",
    ),
    Code(
        "AMB0006",
        "Kind without effect",
        "This version reads no objects of that kind, though others of its group: the object changes nothing. "
        "An Ingress of Istio's class (annotation `kubernetes.io/ingress.class: istio` or `ingressClassName: istio`) "
        "is one of them.",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService",
        "Do not rely on it. docs/limits.md names what is missing; an HTTPRoute does what most VirtualServices do. "
        "For an Ingress write a Gateway with `gatewayClassName: istio` and an HTTPRoute.",
    ),
    Code(
        "AMB0201",
        "ALLOW rule needs a waypoint",
        "The rule uses HTTP attributes, which node proxies cannot see. It is left out there, so it "
        "allows nothing.",
        "rules: [{to: [{operation: {methods: [GET]}}]}]",
        "Use principals, namespaces and ports instead of HTTP attributes, or targetRefs for the waypoint.",
    ),
    Code(
        "AMB0202",
        "DENY rule is stricter than written",
        "The rule uses HTTP attributes, which node proxies cannot see. It denies there without "
        "regard to them.",
        "action: DENY\nrules: [{to: [{operation: {ports: ['80'], paths: [/admin]}}]}]",
        "Use principals, namespaces and ports instead of HTTP attributes, or targetRefs for the waypoint.",
    ),
    Code(
        "AMB0203",
        "Action is not enforced on connections",
        "CUSTOM and AUDIT need a proxy that sees requests. Node proxies do not enforce this policy.",
        "action: CUSTOM",
        "Write it as ALLOW or DENY, or name a Service or Gateway in targetRefs: its proxy asks, and tells.",
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
        "No target of a policy",
        "A policy with targetRefs is for the waypoints of its targets: Services, ServiceEntries and Gateways of its "
        "own namespace, and of a policy in the root namespace GatewayClasses. It protects nothing else.",
        "targetRefs: [{kind: Deployment, name: web}]",
        "Name the Service, or use a selector, which node proxies enforce.",
    ),
    Code(
        "AMB0207",
        "Condition that nobody sees",
        "A waypoint cannot see what the condition is about. An ALLOW rule with it allows nothing; a DENY rule denies "
        "without regard to it. Of CUSTOM these are tokens, too, because whoever is asked is asked first.",
        "when: [{key: connection.sni, values: [example.com]}]",
        "Leave the condition out, or use one that waypoints see.",
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
        "AMB0218",
        "Nobody to ask",
        "A policy with the action CUSTOM has somebody else decide, and there is nobody: no provider of this name is "
        "among extensionProviders of the mesh's settings, or its service does not exist. What the rules match is "
        "refused; other requests pass.",
        "action: CUSTOM\nprovider: {name: authz}",
        "Name a provider of the mesh's settings (global.meshConfig.extensionProviders, or --mesh-config on a laptop), "
        "create its service, or correct its host name or port.",
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
        "AMB0231",
        "Token rule that takes no token",
        "A rule of a RequestAuthentication cannot be carried out as written. Tokens are still looked for where it "
        "says, and none is valid by this rule; requests without a token pass as before.",
        "jwtRules: [{issuer: 'https://issuer.example', jwks: 'no key set'}]",
        "Correct the value that the text names.",
    ),
    Code(
        "AMB0232",
        "Tokens that nobody looks at",
        "A RequestAuthentication without targetRefs is for the gateways whose pods it selects, and this one selects "
        "none: node proxies see no requests, and waypoints heed no selector (as in Istio). Whoever relies on it must "
        "not be let in by it: rules about request.auth allow nothing at nodes.",
        "selector: {matchLabels: {app: web}}\njwtRules: [{issuer: 'https://issuer.example'}]",
        "Name the Service, or the Gateway of its waypoint, in targetRefs instead.",
    ),
    Code(
        "AMB0233",
        "Target that a policy cannot have",
        "A target is a Service, a ServiceEntry or a Gateway of the policy's own namespace, or in the root namespace a "
        "GatewayClass. For this one the policy does nothing; for its other targets it counts.",
        "targetRefs: [{kind: Deployment, name: web}]",
        "Correct kind and group, or move the policy to its target's namespace.",
    ),
    Code(
        "AMB0234",
        "Target without a waypoint",
        "Requests to the targets of this policy pass no waypoint, so nobody looks at them and the policy protects "
        "nothing.",
        "targetRefs: [{kind: Service, name: web}]   # web has no waypoint",
        "Create a Gateway of class ambit-waypoint, and label the Service or its namespace istio.io/use-waypoint.",
    ),
    Code(
        "AMB0235",
        "Keys that could not be fetched",
        "The control plane has no keys for a rule of a RequestAuthentication, so no token is valid by it. It tries "
        "again, and keeps what it has when a later attempt fails.",
        "jwtRules: [{issuer: 'https://issuer.example', jwksUri: 'https://issuer.example/keys'}]",
        "Do what the text says. Addresses that are not public are asked only as a Service of the mesh by its name, or "
        "when the control plane's option --jwks-network allows them.",
    ),
    Code(
        "AMB0236",
        "Policy that no proxy enforces",
        "None of the targets of an AuthorizationPolicy exists, or none has a waypoint that can be used; or one has "
        "somebody else's, which does not say that it enforces policies. What does not exist protects nothing; else "
        "connections to it are refused, so that nobody gets past the policy.",
        "targetRefs: [{kind: Service, group: '', name: wbe}]   # web was meant",
        "Correct the name, or create a Gateway of class ambit-waypoint and label the Service or its namespace "
        "istio.io/use-waypoint. Of somebody else's waypoint that does enforce policies, set the annotation "
        "ambit.io/enforces-policies: 'true' on its Gateway or class.",
    ),
    Code(
        "AMB0240",
        "Telemetry that is for nobody",
        "A Telemetry object with a selector changes nothing: nodes print what they always print, and waypoints and "
        "gateways heed no selector. Nor does one whose targets have no proxy, or of which an older one of the same "
        "namespace or target says everything.",
        "selector: {matchLabels: {app: web}}\naccessLogging: [{providers: [{name: envoy}]}]",
        "Name the Service, or the Gateway, in targetRefs instead; without both it is for the whole namespace. Of "
        "several for one namespace or target write one.",
    ),
    Code(
        "AMB0241",
        "Access log that cannot be written",
        "An entry of a Telemetry object names a provider that takes no access logs, or a filter that Envoy could not "
        "read. The entry does nothing, so that nobody is told but what was meant; other entries count.",
        "accessLogging: [{filter: {expression: response.code >>> 400}}]",
        "Correct the value that the text names. The provider `envoy` is always there; others are extensionProviders of "
        "the mesh's settings, of the kinds envoyFileAccessLog, envoyOtelAls and envoyHttpAls.",
    ),
    Code(
        "AMB0242",
        "Telemetry that is not carried out",
        "A Telemetry object says something of metrics that proxies do not count by: an expression that Envoy could not "
        "read, or one for a metric of connections, a provider other than `prometheus`, a metric that is not there. "
        "Only that part does nothing.",
        "metrics: [{overrides: [{tagOverrides: {host: {value: request.hosts()}}}]}]",
        "Correct what the text names; write the value as a text in quotes; change labels where metrics are scraped; "
        "take the part out of the object.",
    ),
    Code(
        "AMB0243",
        "Spans that are not sent",
        "An entry of a Telemetry object names a provider that takes no spans, or has a tag that Envoy could not read. "
        "The entry does nothing; other entries count.",
        "tracing: [{providers: [{name: jaeger}]}]",
        "Name a provider of the kind `opentelemetry` in extensionProviders of the mesh's settings; correct the tag "
        "that the text names.",
    ),
    Code(
        "AMB0244",
        "Collector that is not there",
        "A Telemetry object, or defaultProviders of the mesh's settings (the ConfigMap ambit-mesh-config), sends spans "
        "or access logs to a provider whose service, or its port, does not exist. Requests pass as always; what would "
        "be sent is lost.",
        "extensionProviders:   # no such Service\n- name: spans\n  opentelemetry: {service: "
        "tempo.obs.svc.cluster.local, port: 4317}",
        "Create the Service, or correct service and port of the provider: global.meshConfig.extensionProviders, or "
        "--mesh-config on a laptop. A host outside is a ServiceEntry, written <namespace>/<host>.",
    ),
    Code(
        "AMB0301",
        "Host that nodes cannot serve",
        "What is no DNS name is nobody's host. Node proxies send connections by address. A host without addresses of "
        "its own (a wildcard to be resolved) needs a proxy that sees names: resolution DYNAMIC_DNS has a waypoint do "
        "that for TLS, if the mesh's settings let it. What is an error here is as if it were not there.",
        "hosts: ['*.example.com']\nresolution: DNS",
        "List the hosts one by one, or give the entry endpoints. For TLS: resolution DYNAMIC_DNS and a waypoint.",
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
        "Nobody is sent to this endpoint of a ServiceEntry, or to this WorkloadEntry; the others count. What is "
        "neither an IP address nor a DNS name (`127.1` is neither) can never be reached.",
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
        "Service's or a pod's, or one that the mesh gave to a host of another ServiceEntry. It is left out, so "
        "nobody's traffic is taken; what else the entry says counts.",
        "metadata: {namespace: team-a}\nspec: {hosts: [web.team-b.svc.cluster.local]}",
        "Choose a host outside the cluster domain, or below the entry's own namespace (db.team-a.svc.cluster.local), "
        "and an address that nobody in the cluster has.",
    ),
    Code(
        "AMB0307",
        "Host without an IPv4 address",
        "The mesh gives hosts of ServiceEntries addresses of its own, an eighth of them to one namespace at the most: "
        "8,191 of IPv4. This host was given an IPv6 address only, so who can use IPv4 alone does not reach it.",
        "metadata: {namespace: team-a}\nspec: {hosts: [db.example.com], resolution: DNS}   # after 8,191 others of it",
        "Delete entries that nobody needs, or write spec.addresses. An entry is looked at again when it changes.",
    ),
    Code(
        "AMB0308",
        "Address of another pod, Service or node",
        "The pod's status has an address that is somebody else's: another pod's of which more speaks for it (its node "
        "exists and gives out such addresses, it does not end, it is older), a Service's, or another node's. It is "
        "left out, so that nobody's traffic is taken; the pod's other addresses count.",
        "kind: Pod\nstatus: {podIPs: [{ip: 10.244.1.5}]}   # of a pod on the node with 10.244.1.0/24",
        "Find out who wrote the status: a node does, and nobody else needs the right to write pods/status. Pods of "
        "another network with the same addresses need the label topology.istio.io/network.",
    ),
    Code(
        "AMB0401",
        "Route that is not in force",
        "The route is not applied for this parent: the parent does not exist, has no waypoint, has routes of another "
        "kind, or no rule of the route can be carried out. Requests go where they would go without it. A Service as "
        "parent needs group: ''.",
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
        "A gateway or waypoint cannot be made as the Gateway asks. Without any good listener there is none, and "
        "connections of what is bound to it are refused. With parameters that cannot be used (its own, or those "
        "of its class) what was made of it before goes on as it is.",
        "gatewayClassName: ambit-waypoint\nlisteners: [{name: mesh, port: 80, protocol: HTTP}]",
        "A waypoint needs one listener: name mesh, port 15008, protocol HBONE. Of parameters the text names the field.",
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
    Code(
        "AMB0406",
        "TLS to a backend that cannot be had",
        "The policy names no root that could be trusted, asks for what this version does not know, or an older policy "
        "is for the same port. In the first two cases nothing is sent to the Service's port through proxies: "
        "requests are answered with 503, never sent in plain text.",
        "validation: {hostname: db.example.com, caCertificateRefs: [{group: '', kind: ConfigMap, name: missing}]}",
        "Create the ConfigMap with certificates (PEM) under ca.crt, correct what the text names, or delete one of two "
        "policies for one port.",
    ),
    Code(
        "AMB0408",
        "Listener without what it refers to",
        "A listener names a Secret or ConfigMap that does not exist, cannot be used, or is in a namespace that does "
        "not permit it; or kinds of routes that its protocol does not carry. Without a certificate it takes no "
        "connections.",
        "tls: {certificateRefs: [{name: shop-example-com}]}   # no such Secret",
        "Create the Secret (type kubernetes.io/tls) with a chain and its key, or a ReferenceGrant for Gateway in its "
        "namespace; correct what the text names.",
    ),
    Code(
        "AMB0409",
        "Gateway that goes past a waypoint",
        "Gateways call services directly (as in Istio), also those that have a waypoint. Its routes do not count for "
        "such requests; where a policy for the waypoint protects the service they are refused.",
        "metadata: {labels: {istio.io/use-waypoint: waypoint}}   # of a Service that a Gateway's route leads to",
        "Label the Service or its namespace istio.io/ingress-use-waypoint=true. If it is meant, write =false.",
    ),
    Code(
        "AMB0410",
        "Way around a waypoint",
        "Policies protect the service at its waypoint, and there is a way to its pods on which they are not asked: "
        "ambit.io/fail-open; pods that are not in the mesh, not captured on the way in, or of another namespace; a "
        "second waypoint, or another Service that leads to the same pods by itself or by a route through a waypoint, "
        "and that not the same policies are for.",
        "targetRefs: [{kind: Service, group: '', name: reviews}]   # reviews-v1 leads to the same pods",
        "Take the label or annotation away, enrol the pods, or name every Service and Gateway that leads to them in "
        "targetRefs.",
    ),
    Code(
        "AMB0411",
        "Service that is closed",
        "The service has an inline waypoint, and something that is written for it (a policy, tokens, a route with the "
        "filter ExternalAuth, a BackendTLSPolicy) nobody could carry out there for everybody who calls. Connections to "
        "it are refused; their records call its waypoint not ready.",
        "filters: [{type: ExternalAuth, …}]   # in a route of a Service whose Gateway is of class ambit-inline",
        "Write it in another way, or give the Gateway the class ambit-waypoint, whose pods carry it out.",
    ),
    Code(
        "AMB0412",
        "Routes that lead in a circle",
        "A route of a gateway leads to a gateway, by a Service whose endpoints are that gateway's pods, and from the "
        "port there routes lead back. A gateway does not call itself in such a circle: requests are answered with 503, "
        "connections and datagrams end. Over several gateways what comes in goes round, unless hosts or paths change "
        "on the way: requests until 32 proxies have added to x-forwarded-for, connections and datagrams until the "
        "gateways are full.",
        "parentRefs: [{name: edge}]\nrules: [{backendRefs: [{name: edge-ambit, port: 80}]}]   # its own Service",
        "Send requests to the Services that are to answer them. To lead from one listener to another use another port.",
    ),
    Code(
        "AMB0413",
        "Listeners beyond a namespace's share",
        "The ListenerSets of one namespace add 512 listeners to a Gateway at the most, which is shared by others; one "
        "with several certificates counts as many times. The older set goes first, and what is beyond is refused. "
        "Nobody else's listeners are touched.",
        "kind: ListenerSet   # after others of its namespace with 512 listeners\n"
        "spec: {parentRef: {name: front}, listeners: [{name: one-more, port: 80, protocol: HTTP}]}",
        "Delete listeners that nobody needs, use one with a wildcard for several hosts, or a Gateway of your own.",
    ),
    Code(
        "AMB0417",
        "Routes beyond a namespace's share",
        "The routes of one namespace for Services of other namespaces are at most 512, with at most 2 MiB of rules, "
        "each counted for each of its Services and ports: the waypoints and nodes that carry them are others'. The "
        "older route goes first, and one beyond the share is not accepted (TooManyRoutes): requests of its namespace "
        "go as without it. Routes of other namespaces, and those for Services of its own, are as before.",
        "kind: HTTPRoute   # after others of its namespace with 2 MiB of rules\n"
        "metadata: {name: one-more, namespace: shop}\n"
        'spec: {parentRefs: [{group: "", kind: Service, name: stock, namespace: warehouse}]}',
        "Delete routes that you no longer need, have fewer matches and parents, or have the Service's namespace carry "
        "the routes.",
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
