"""A kubelet's pods: whose a process is, and which namespace is the pod's."""

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.errors import AmbitError
from ambit.node.netns import identity
from ambit.node.netns.identity import NamespaceId
from ambit.node.netns.kubelet import KubeletPods, pod_uid

UID = "0b7e0a3c-6a0b-4d5e-9d8f-7f1a2b3c4d5e"
OTHER = "11111111-2222-3333-4444-555555555555"
SYSTEMD = UID.replace("-", "_")
ADDRESS = (ipaddress.ip_address("10.244.1.5"),)


@pytest.mark.parametrize(
    "text",
    [
        f"12:memory:/kubepods/besteffort/pod{UID}/abc\n1:name=systemd:/kubepods/besteffort/pod{UID}/abc\n",
        f"3:cpu,cpuacct:/kube1/kubepods/burstable/pod{UID}/abc\n2:misc:/\n",
        f"0::/kubepods/pod{UID}/abc",
        f"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SYSTEMD}.slice/cri-containerd-abc.scope",
        f"0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{SYSTEMD}.slice/crio-abc.scope/init",
        f"0::/../../kubepods-burstable-pod{SYSTEMD}.slice/cri-containerd-abc.scope",
        f"0::/../pod{UID}/abc",
        f"0::/kubepods/pod{UID}/abc/pod{OTHER}",
    ],
)
def test_the_pod_of_a_process(text: str) -> None:
    assert pod_uid(text) == UID


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0::/",
        "0::/system.slice/containerd.service",
        f"0::/kubepods/tripod{UID}/abc",
        f"0::/kubepods/pod{UID}x/abc",
        f"0::/kubepods/pod{UID[:-1]}/abc",
        f"2:cpu:/kubepods/pod{UID}/a\n1:memory:/kubepods/pod{OTHER}/a\n",
    ],
)
def test_a_process_of_no_pod(text: str) -> None:
    assert pod_uid(text) is None


@given(st.text())
def test_no_text_is_too_strange(text: str) -> None:
    pod_uid(text)


class Host:
    """A host's /proc and pins, as files; a namespace is a file of its own."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.proc, self.pins, self._namespaces = directory / "proc", directory / "pins", directory / "ns"
        for each in (self.proc, self.pins, self._namespaces):
            each.mkdir()
        self.addresses: dict[str, frozenset[ipaddress.IPv4Address]] = {}
        monkeypatch.setattr(identity, "identify", self._identify)
        self.pods = KubeletPods(self.proc, self.pins, lambda path: self.addresses[Path(path).name])

    def process(self, pid: int, uid: str, namespace: str) -> None:
        directory = self.proc / str(pid)
        (directory / "ns").mkdir(parents=True)
        (directory / "cgroup").write_text(f"0::/kubepods/pod{uid}/c{pid}\n")
        (directory / "ns/net").symlink_to(self._namespace(namespace))

    def pin(self, name: str, namespace: str, *addresses: str) -> None:
        (self.pins / name).symlink_to(self._namespace(namespace))
        self.addresses[name] = frozenset(map(ipaddress.IPv4Address, addresses))

    def _namespace(self, name: str) -> Path:
        (self._namespaces / name).touch()
        return self._namespaces / name

    @staticmethod
    def _identify(path: str) -> NamespaceId:
        found = Path(path).stat()
        return NamespaceId(found.st_dev, found.st_ino)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_found_by_uid_and_address(host: Host) -> None:
    host.process(1, "", "host")
    host.process(10, UID, "a")
    host.process(11, UID, "a")
    host.process(12, UID, "unshared by the pod itself")
    host.process(20, OTHER, "b")
    host.pin("cni-a", "a", "10.244.1.5")
    host.pin("cni-b", "b", "10.244.1.6", "10.244.1.5")
    assert host.pods.find(UID, ADDRESS) == ("cni-a", str(host.pins / "cni-a"))


def test_another_pod_that_took_the_address_is_not_found_in_its_place(host: Host) -> None:
    host.process(10, UID, "a")
    host.process(20, OTHER, "b")
    host.pin("cni-a", "a")
    host.pin("cni-b", "b", "10.244.1.5")
    with pytest.raises(AmbitError, match="0 network namespaces of the pod"):
        host.pods.find(UID, ADDRESS)


def test_a_process_number_used_again_is_noticed(host: Host) -> None:
    host.process(10, UID, "a")
    host.pin("cni-a", "a", "10.244.1.5")
    host.pin("cni-b", "b", "10.244.1.5")
    host.pods.find(UID, ADDRESS)
    (host.proc / "10/cgroup").write_text(f"0::/kubepods/pod{OTHER}/c\n")
    with pytest.raises(AmbitError, match="no process"):
        host.pods.find(UID, ADDRESS)
    host.process(11, UID, "b")
    assert host.pods.find(UID, ADDRESS)[0] == "cni-b"


def test_what_is_missing_is_said(host: Host) -> None:
    with pytest.raises(AmbitError, match="no process"):
        host.pods.find(UID, ADDRESS)
    host.process(10, UID, "a")
    with pytest.raises(AmbitError, match="is not under"):
        host.pods.find(UID, ADDRESS)
    host.pin("cni-a", "a", "10.244.1.5")
    with pytest.raises(AmbitError, match="none known"):
        host.pods.find(UID, ())


def test_namespaces_as_runtimes_name_them(host: Host) -> None:
    assert host.pods.pinned("/var/run/netns/cni-1") == str(host.pins / "cni-1")
    assert host.pods.pinned("/run/netns/cni-1") == str(host.pins / "cni-1")
    for other in ("/proc/77/ns/net", "", "/run/netns", "/run/netns/..", "/run/netns/../x"):
        with pytest.raises(AmbitError, match="keeps the pod's network namespace"):
            host.pods.pinned(other)
