"""TLS to backends: with whom it is spoken, and that nothing is sent to others."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ambit.model.backend_tls import BackendTls
from ambit.model.http import Action, Backend, Entry, Mirror, RequestMatch
from ambit.model.service import AppProtocol, Service
from ambit.model.workload import Port, Workload
from tests.plan.dataplane.conftest import Authority
from tests.plan.dataplane.served import until
from tests.plan.waypoint.conftest import PORT, TARGET, V2, Scene, service
from tests.plan.waypoint.echo import Answer, Echo

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

TLS_TARGET = 8443
HOST = "backend.example.com"
URI = "spiffe://example.com/backend"


def backend(tls: BackendTls | None = None, **more: object) -> Service:
    found = {PORT: tls} if tls is not None else {}
    return service("secure", 6, bound=False, ports=(Port(PORT, TLS_TARGET),), backend_tls=found, **more)


class Servers:
    """HTTPS on a pod, which a tunnel leads to, or on what is no pod. `seen` are the names that were asked for."""

    def __init__(self, scene: Scene, authority: Authority, directory: Path) -> None:
        self.scene = scene
        self.root = authority.root
        self.seen: list[str | None] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for name, text in zip(
            ("chain", "key"), authority.certificate(HOST, "*.example.org", URI), strict=True
        ):
            (directory / name).write_text(text)
        context.load_cert_chain(directory / "chain", directory / "key")
        context.set_alpn_protocols(["http/1.1"])
        context.sni_callback = lambda _, name, __: self.seen.append(name)
        pod = scene.mesh.pods["v1"]
        self.echoes = [
            Echo(pod, "v1", TLS_TARGET, context),
            Echo(scene.outside, "plain", TLS_TARGET, context),
        ]

    def stand(self, name: str, target: int = TLS_TARGET) -> None:
        """This one alone is behind the backend, with this port."""

        def serving(workload: Workload) -> Workload:
            services = {**workload.services, backend().key: (Port(PORT, target),)}
            return msgspec.structs.replace(workload, services=services)

        mesh = self.scene.mesh
        if name in mesh.pods:
            mesh.pods[name].workload = serving(mesh.pods[name].workload)
        else:
            mesh.others = [serving(each) if each.name == name else each for each in mesh.others]

    def get(self, tls: BackendTls | None, *, is_copied: bool = False, **more: object) -> Answer:
        """The answer to a request that is led to the backend, or `is_copied` to it."""
        of = backend(tls, **more)
        mesh = self.scene.mesh
        mesh.services = [each for each in mesh.services if each.name != of.name] + [of]
        action = Action((Backend(V2.key if is_copied else of.key, PORT),))
        if is_copied:
            action = msgspec.structs.replace(action, mirrors=(Mirror(of.key, PORT),))
        self.scene.route(Entry("default/route/0", RequestMatch(), action))
        return self.scene.get("/a")

    def close(self) -> None:
        for each in self.echoes:
            each.close()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def servers(
    running: Scene, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    made = Servers(running, authority, tmp_path_factory.mktemp("tls"))
    mesh = running.mesh
    before = list(mesh.services)
    yield made
    mesh.services = before
    made.close()


@pytest.fixture(params=["v1", "plain"])
def server(scene: Scene, servers: Servers, request: pytest.FixtureRequest) -> Iterator[str]:
    """Which of the two is behind the backend."""
    name: str = request.param
    mesh, pod = scene.mesh, scene.mesh.pods["v1"]
    others, before = mesh.others, pod.workload
    servers.stand(name)
    servers.seen.clear()
    for echo in servers.echoes:
        echo.seen.clear()
    yield name
    pod.workload, mesh.others = before, others


def test_the_server_is_known_by_its_name(servers: Servers, server: str) -> None:
    answer = servers.get(BackendTls(HOST, servers.root, (HOST,)))
    assert (answer.status, answer.server) == (200, server)
    assert servers.seen == [HOST]
    assert answer.echo["headers"]["host"] == ["web"]


def test_copies_are_sent_so_too(servers: Servers, server: str) -> None:
    assert servers.get(BackendTls(HOST, servers.root, (HOST,)), is_copied=True).server == "v2"
    until(lambda: [each.seen for each in servers.echoes if each.name == server] == [["/a"]], "the copy")
    assert servers.seen == [HOST]


@pytest.mark.parametrize(
    ("names", "uris"),
    [((), (URI,)), (("other.example.com", "a.example.org"), ()), (("other.example.com",), (URI,))],
)
def test_any_name_that_is_given_will_do(
    servers: Servers, server: str, names: tuple[str, ...], uris: tuple[str, ...]
) -> None:
    answer = servers.get(BackendTls("asked.example.com", servers.root, names, uris))
    assert (answer.server, servers.seen) == (server, ["asked.example.com"])


@pytest.mark.parametrize(
    ("names", "uris"),
    [(("other.example.com",), ()), ((), (f"{URI}/other",)), (("a.b.example.org",), ()), (("backend",), ())],
)
def test_a_server_of_another_name_gets_nothing(
    servers: Servers, server: str, names: tuple[str, ...], uris: tuple[str, ...]
) -> None:
    assert servers.get(BackendTls(HOST, servers.root, names, uris)).status == 503
    assert [echo.seen for echo in servers.echoes] == [[], []]


def test_a_server_of_another_authority_gets_nothing(servers: Servers, server: str) -> None:
    assert servers.get(BackendTls(HOST, Authority().root, (HOST,))).status == 503


def test_a_server_without_tls_gets_nothing(scene: Scene, servers: Servers, server: str) -> None:
    servers.stand(server, TARGET)
    assert servers.get(BackendTls(HOST, servers.root, (HOST,))).status == 503
    assert all(not echo.seen for echo in scene.echoes.values())


def test_roots_may_be_in_a_file_of_the_proxy(servers: Servers, server: str, tmp_path: Path) -> None:
    file = tmp_path / "roots.crt"
    file.write_text(f"{Authority().root}\n{servers.root}")
    wanted = BackendTls(HOST, names=(HOST,), roots_file=str(file))
    assert servers.get(wanted).server == server
    assert servers.get(msgspec.structs.replace(wanted, names=("other.example.com",))).status == 503
    file.write_text(Authority().root)
    assert servers.get(msgspec.structs.replace(wanted, hostname="again.example.com")).status == 503


def test_without_roots_nothing_is_sent(servers: Servers, server: str) -> None:
    assert servers.get(BackendTls(HOST, "", (HOST,))).status == 503
    assert servers.seen == []
    assert servers.get(BackendTls(HOST, servers.root, (HOST,))).server == server


def test_a_port_that_speaks_http_2_only_is_asked_for_it(servers: Servers, server: str) -> None:
    """Which this server does not."""
    h2 = {PORT: AppProtocol.HTTP2}
    assert servers.get(BackendTls(HOST, servers.root, (HOST,)), app_protocols=h2).status in (502, 503)
    assert servers.seen
