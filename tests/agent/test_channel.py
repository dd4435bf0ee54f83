import pytest

from ambit.agent.channel import control_address
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
