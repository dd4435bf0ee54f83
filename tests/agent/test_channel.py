import datetime as dt
from pathlib import Path

import grpc
import pytest

from ambit.agent.channel import ControlPlane, control_address
from ambit.ca.authority import Authority
from ambit.core.errors import BadInput


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("istiod.istio-system.svc:15012", "istiod.istio-system.svc:15012"),
        ("https://istiod.istio-system.svc:15012", "istiod.istio-system.svc:15012"),
        ("https://istiod.istio-system.svc:15012/", "istiod.istio-system.svc:15012"),
        ("https://istiod", "istiod:15012"),
        ("istiod", "istiod:15012"),
        ("10.0.0.1:443", "10.0.0.1:443"),
        ("[fd00::1]", "[fd00::1]:15012"),
        ("https://[fd00::1]:443", "[fd00::1]:443"),
    ],
)
def test_addresses_of_a_control_plane(written: str, meant: str) -> None:
    assert control_address(written) == meant


@pytest.mark.parametrize(
    "written",
    ["", "http://istiod:15010", "https://", ":15012", "istiod:port", "istiod:", "istiod/x", "fd00::1"],
)
def test_what_is_no_address_is_refused_with_what_to_write(written: str) -> None:
    with pytest.raises(BadInput) as refused:
        control_address(written)
    assert "https://HOST:PORT" in refused.value.hint


async def test_a_damaged_root_is_left_out_and_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good = Authority.create("cluster.local", dt.datetime.now(dt.UTC)).roots
    file = tmp_path / "root-cert.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + good)
    given: list[bytes] = []
    create = grpc.ssl_channel_credentials

    def record(root: bytes) -> grpc.ChannelCredentials:
        given.append(root)
        return create(root)

    monkeypatch.setattr(grpc, "ssl_channel_credentials", record)
    for _ in range(2):
        await ControlPlane("127.0.0.1:1", file).channel().close()
    assert [each.decode().strip() for each in given] == [good.strip()] * 2
    (said,) = (each.getMessage() for each in caplog.records if each.levelname == "WARNING")
    assert said.startswith(f"{file} (ConfigMap istio-ca-root-cert): PEM block 1 cannot be read")
