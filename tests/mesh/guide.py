"""What guides for Istio type: sample files as they are, the manifests of their pages, and curl."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ambit.testing.mesh import Mesh
from tests.mesh.pods import make_namespace

SAMPLES = Path(__file__).parents[2] / "examples" / "istio"
"""As `samples` in Istio's repository."""


class Guide:
    """A namespace of the mesh with samples in it, where a page says `default`, and one outside with a client."""

    def __init__(self, mesh: Mesh, namespace: str, outside: str) -> None:
        self.mesh = mesh
        self.namespace = namespace
        self.outside = outside

    def samples(self, *names: str, selector: str = "") -> None:
        """Applies files of the samples, unchanged."""
        files = [word for name in names for word in ("-f", str(SAMPLES / f"{name}.yaml"))]
        chosen = ("-l", selector) if selector else ()
        self.mesh.kubectl("apply", "-n", self.namespace, *files, *chosen)

    def apply(self, manifest: str, namespace: str = "") -> None:
        """YAML in which `INSIDE` and `OUTSIDE` stand for the two namespaces; its objects are inside unless said."""
        named = manifest.replace("INSIDE", self.namespace).replace("OUTSIDE", self.outside)
        self.mesh.kubectl("apply", "-n", namespace or self.namespace, "-f", "-", stdin=named)

    @contextmanager
    def routes(self, *names: str) -> Iterator[None]:
        """Files of routes while they are there; whatever has their names is deleted."""
        self.samples(*names)
        yield
        files = [word for name in names for word in ("-f", str(SAMPLES / f"{name}.yaml"))]
        self.mesh.kubectl("delete", "-n", self.namespace, "--ignore-not-found", *files)

    def delete(self, *objects: str, namespace: str = "") -> None:
        self.mesh.kubectl("delete", "-n", namespace or self.namespace, "--ignore-not-found", *objects)

    def available(self, namespace: str = "") -> None:
        """Returns when every Deployment is."""
        words = (
            "wait",
            "-n",
            namespace or self.namespace,
            "--for=condition=Available",
            "deployment",
            "--all",
        )
        self.mesh.kubectl(*words, "--timeout=110s")

    def address(self, gateway: str, namespace: str = "") -> str:
        """`$INGRESS_HOST`, with the commands of the pages."""
        place = ("-n", namespace or self.namespace)
        self.mesh.kubectl("wait", "--for=condition=programmed", "gtw", gateway, *place, "--timeout=110s")
        path = "jsonpath={.status.addresses[0].value}"
        return self.mesh.kubectl("get", "gtw", gateway, *place, "-o", path).stdout

    def curl(self, *words: str, client: str = "deploy/curl", outside: bool = False) -> str:
        """What it prints; when it fails, `exit` and its code."""
        namespace = self.outside if outside else self.namespace
        done = self.mesh.exec(namespace, client, "curl", "-s", "-m", "30", *words, check=False)
        return f"exit {done.returncode}" if done.returncode else done.stdout

    def code(self, *words: str, client: str = "deploy/curl", outside: bool = False) -> str:
        """The status of the answer."""
        asked = ("-o", "/dev/null", "-w", "%{http_code}")
        return self.curl(*asked, *words, client=client, outside=outside)

    def until(self, wanted: str, *words: str, client: str = "deploy/curl", outside: bool = False) -> None:
        """Waits for this status, or `exit` and a code."""
        what = f"{wanted} from curl {' '.join(words)}"
        self.mesh.wait(what, lambda: self.code(*words, client=client, outside=outside) == wanted)


@contextmanager
def make_guide(mesh: Mesh, samples: Sequence[str]) -> Iterator[Guide]:
    """With these samples, and curl on both sides."""
    with make_namespace(mesh) as inside, make_namespace(mesh, enrolled=False) as outside:
        guide = Guide(mesh, inside, outside)
        guide.samples("curl", *samples)
        mesh.kubectl("apply", "-n", outside, "-f", str(SAMPLES / "curl.yaml"))
        yield guide
