"""Ports, marks, labels, annotations and names that other parts and other meshes rely on.

Numbers and spellings are Istio ambient's (ztunnel and istio-cni), so that its tools and YAML work unchanged.
"""

OUTBOUND_PORT = 15001
INBOUND_PLAINTEXT_PORT = 15006
HBONE_PORT = 15008
DNS_PORT = 15053
RESERVED_PORTS = frozenset({OUTBOUND_PORT, INBOUND_PLAINTEXT_PORT, HBONE_PORT, DNS_PORT})

NODE_ADMIN_PORT = 15000
METRICS_PORT = 15020
READINESS_PORT = 15021

CONTROL_TLS_PORT = 15012
CONTROL_PLAIN_PORT = 15010
CONTROL_DEBUG_PORT = 15014

PROXY_MARK = 0x539
"""fwmark of every packet that a node proxy sends from inside a pod's namespace."""
OUTBOUND_MARK, PLAINTEXT_MARK, DNS_MARK = 0x1539, 0x2539, 0x4539
"""The same of one listener of a pod that is captured without NAT: there its sockets have no port of their own."""
DIRECT_MARK = 0x8539
"""The same of what a pod that leaves the mesh accepts directly: its sockets have the mark, so their packets go out."""
CONNECTION_MARK = 0x111
MARK_MASK = 0xFFF
PROBE_ADDRESS_V4 = "169.254.7.127"
PROBE_ADDRESS_V6 = "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"
"""Source addresses of host probes as istio-cni uses them."""
PROBE_MARK = 0x1337
"""fwmark of the laptop's probes in a node's namespace: who may not set it cannot use their source addresses."""

DATAPLANE_MODE_LABEL = "istio.io/dataplane-mode"
DATAPLANE_MODE_AMBIENT = "ambient"
DATAPLANE_MODE_NONE = "none"
REDIRECTION_ANNOTATION = "ambient.istio.io/redirection"
REDIRECTION_ENABLED = "enabled"
REDIRECTION_PENDING = "pending"
"""Capture is asked for, and could not be done yet."""
BYPASS_INBOUND_ANNOTATION = "ambient.istio.io/bypass-inbound-capture"
NOT_CAPTURED_ANNOTATION = "ambit.io/not-captured"
"""Why a pod that asks for capture is not captured."""
SIDECAR_ANNOTATION = "sidecar.istio.io/status"
"""Written by whoever injected a sidecar: the pod's traffic has a proxy already."""
AUTO_ALLOCATE_LABEL = "networking.istio.io/enable-autoallocate-ip"
"""`false` on a ServiceEntry whose hosts are to get no addresses."""
DNS_CAPTURE_ANNOTATION = "ambient.istio.io/dns-capture"
CAPTURE_ANNOTATION = "ambit.io/capture"
"""On a pod: `nat` has it captured by NAT redirect whatever the node's usual way is."""
CANONICAL_NAME_LABEL = "service.istio.io/canonical-name"
REVISION_LABEL = "istio.io/rev"
CANONICAL_REVISION_LABEL = "service.istio.io/canonical-revision"
TUNNEL_LABEL = "networking.istio.io/tunnel"
"""`http` on a workload that speaks HBONE itself."""

USE_WAYPOINT_LABEL = "istio.io/use-waypoint"
USE_WAYPOINT_NAMESPACE_LABEL = "istio.io/use-waypoint-namespace"
CANARY_LABEL = "istio.io/use-waypoint-canary"
CANARY_NAMESPACE_LABEL = "istio.io/use-waypoint-canary-namespace"
CANARY_WEIGHT_ANNOTATION = "istio.io/use-waypoint-canary-weight"
INGRESS_USE_WAYPOINT_LABEL = "istio.io/ingress-use-waypoint"
"""`true`: gateways call a service through its waypoint, too."""
WAYPOINT_NONE = "none"
"""As the value of `istio.io/use-waypoint`: no waypoint, whatever the namespace says."""
WAYPOINT_FOR_LABEL = "istio.io/waypoint-for"
INBOUND_BINDING_ANNOTATION = "ambient.istio.io/waypoint-inbound-binding"
"""On a Gateway that is somebody else's, or its class: how its pods' nodes hand on what comes in tunnels."""
ENFORCES_ANNOTATION = "ambit.io/enforces-policies"
"""On such a Gateway, or its class: `true` when it enforces policies for requests itself."""
MANAGED_LABEL = "gateway.istio.io/managed"
"""On what belongs to a gateway's proxy; the value says of which sort the gateway is."""
MANAGED_WAYPOINT = "istio.io-mesh-controller"
MANAGED_GATEWAY = "istio.io-gateway-controller"
MANAGED_EAST_WEST = "istio.io-eastwest-controller"
GATEWAY_NAME_LABEL = "gateway.networking.k8s.io/gateway-name"
GATEWAY_CLASS_LABEL = "gateway.networking.k8s.io/gateway-class-name"
SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"
"""Certificates of public authorities, where Debian and most others have them: our image's, on a laptop the host's."""
CLASS_DEFAULTS_LABEL = "gateway.istio.io/defaults-for-class"
"""On a ConfigMap: patches to what is made of all Gateways of that class."""
WAYPOINT_CLASSES = ("ambit-waypoint", "istio-waypoint")
WAYPOINT_CONTROLLER = "ambit.io/waypoint-controller"
"""`controllerName` of the GatewayClasses whose gateways are our waypoints."""
GATEWAY_CLASS_NAMES = ("ambit", "istio")
GATEWAY_CONTROLLER = "ambit.io/gateway-controller"
"""`controllerName` of the GatewayClasses whose gateways are at the edge of the mesh."""
INLINE_CLASS, INLINE_CONTROLLER = "ambit-inline", "ambit.io/inline-controller"
"""The GatewayClass, and its `controllerName`, of waypoints that are no pods: callers' node proxies do their work."""

SYSTEM_NAMESPACE = "ambit-system"
ROOT_NAMESPACE = "istio-system"
DEFAULT_TRUST_DOMAIN = "cluster.local"
DEFAULT_CLUSTER_ID = "Kubernetes"
CLUSTER_DOMAIN = "cluster.local"
CA_TOKEN_AUDIENCE = "istio-ca"  # noqa: S105 - an audience, not a secret
ROOT_CERT_CONFIGMAP = "istio-ca-root-cert"
ROOT_CERT_KEY = "root-cert.pem"
ROOT_KEY_SECRET = "istio-ca-secret"  # noqa: S105 - a name, not a secret
AUTHORITY_SECRET = "ambit-ca"  # noqa: S105 - a name, not a secret
"""What the mesh does now: who signs, and what is trusted."""
CONTROL_LEASE = "ambit-control"
CRL_CONFIGMAP = "istio-ca-crl"
CRL_KEY = "ca-crl.pem"
TRUST_CONFIGMAP = "ambit-trust"
"""In the system namespace: what node agents are to trust, and who signs."""
MESH_CONFIGMAP = "ambit-mesh-config"
"""In the system namespace; the control plane's pod mounts it."""
MESH_CONFIG_KEY = "mesh.yaml"
"""Of that ConfigMap."""
ACKNOWLEDGEMENTS_CONFIGMAP = "ambit-acknowledgements"
"""In the system namespace: what the nodes of each replica of the control plane have, for the one that writes status."""
TRUST_ANNOTATION = "ambit.io/trust"
"""On a node agent's pod: the digest of the trust that its proxy has and its certificates follow."""

FAIL_OPEN_LABEL = "ambit.io/fail-open"
"""Beside the label that asks for a waypoint: connections go past it while it cannot take them."""
UNUSABLE_WAYPOINT = "not-allowed.invalid"
"""Ends the hostname, which nobody has (RFC 6761), of a waypoint that cannot be used: nodes refuse what is to go there.
Before it are the waypoint's name and namespace."""
CLOSED_WITHOUT_WAYPOINT = "no-waypoint.invalid"
"""The same of a service that a policy for requests closes, because no waypoint enforces it."""
GONE_ROUND = "too many proxies in x-forwarded-for"
"""Stands in records for the rule that refuses a request at a gateway which has come through too many."""
ONLY_BY_WAYPOINT = "only_by_waypoint"
"""Begins the names of Authorizations that let nobody past a waypoint. An underscore is not allowed in names of objects,
so none meets an AuthorizationPolicy."""

CONVERTED_STRICT_POLICY = "istio_converted_static_strict"
"""Name of the Authorization that stands for STRICT mTLS, in the root namespace (as istiod sends it)."""
