"""What the suite is asked to do: one run for meshes and one for gateways, each with a report of its own.

A mesh's namespaces are enrolled and have a waypoint, for that is who carries routes out. The suite makes its
namespaces itself, with the labels it is told; waypoints are made before it starts.
"""

import re
from pathlib import Path

import msgspec

from ambit import __version__
from ambit.ingest.gateway.features import Place, supported
from ambit.local.layout import BALANCERS_V4

WAYPOINT = "waypoint"
MESH_NAMESPACES = ("gateway-conformance-mesh", "gateway-conformance-mesh-consumer")
MESH_LABELS = {"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": WAYPOINT}
PROFILES = {
    "mesh": ("MESH-HTTP", "MESH-GRPC"),
    "gateway": ("GATEWAY-HTTP", "GATEWAY-GRPC", "GATEWAY-TLS", "GATEWAY-TCP", "GATEWAY-UDP"),
}
ROUTES = {"TLS": "TLSRoute", "TCP": "TCPRoute", "UDP": "UDPRoute", "GRPC": "GRPCRoute", "HTTP": "HTTPRoute"}
GATEWAY_CLASS = "ambit"
ADDRESSES = {"usable-address": str(BALANCERS_V4[200]), "unusable-address": "192.0.2.1"}
"""One that the load balancers of both kinds of clusters can give, and one that they cannot."""
IMPLEMENTATION = {
    "organization": "ambit",
    "project": "ambit",
    "url": "not published yet",
    "version": f"v{__version__}",
    "contact": "not published yet",
}
_RESULT = re.compile(r"^    --- (PASS|FAIL|SKIP): TestConformance/(\S+) ", re.MULTILINE)


class Run(msgspec.Struct, frozen=True):
    """One start of the suite. `mode` is `mesh` or `gateway`."""

    mode: str
    profiles: tuple[str, ...]

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Those that must be there, with a waypoint, before the suite starts."""
        return MESH_NAMESPACES if self.mode == "mesh" else ()

    def arguments(self, report: Path, *, experimental: bool = False) -> list[str]:
        """The suite's own flags. `experimental`: the API's experimental channel is installed."""
        told = {**IMPLEMENTATION, "mode": self.mode, "report-output": str(report)}
        if self.mode == "mesh":
            told["namespace-labels"] = ",".join(f"{key}={value}" for key, value in MESH_LABELS.items())
            told["supported-features"] = ",".join(supported(Place.MESH, experimental=experimental))
        else:
            told |= {"gateway-class": GATEWAY_CLASS, **ADDRESSES}
            if experimental:  # otherwise the class says them
                told["supported-features"] = ",".join(supported(Place.GATEWAY, experimental=True))
        told["conformance-profiles"] = ",".join(self.profiles)
        return ["-test.v", "-test.timeout", "60m", *(f"-{key}={value}" for key, value in told.items())]


def chosen(profiles: tuple[str, ...]) -> tuple[Run, ...]:
    """The runs for these profiles; without any for all of whose routes something is supported."""
    wanted = profiles or _supported_profiles()
    runs = (Run(mode, tuple(each for each in known if each in wanted)) for mode, known in PROFILES.items())
    return tuple(run for run in runs if run.profiles)


def _supported_profiles() -> tuple[str, ...]:
    at_gateways = set(supported(Place.GATEWAY))
    return (
        *PROFILES["mesh"],
        *(each for each in PROFILES["gateway"] if ROUTES[each.partition("-")[2]] in at_gateways),
    )


def waypoint(namespace: str) -> list[dict[str, object]]:
    """A namespace in the mesh and its waypoint."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": MESH_LABELS}},
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": WAYPOINT, "namespace": namespace},
            "spec": {
                "gatewayClassName": "ambit-waypoint",
                "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
            },
        },
    ]


def results(log: str) -> dict[str, str]:
    """PASS, FAIL or SKIP of each test, from what the suite printed."""
    return {name: result for result, name in _RESULT.findall(log)}
