import sys

import pytest

from ambit.core.errors import BadInput
from ambit.local.pods.images import ImageEntry, UnknownImage, parse_entries, resolve


def argv(image: str, *user: ImageEntry, **container: list[str]) -> list[str]:
    return resolve({"image": image, **container}, user)[0]


@pytest.mark.parametrize(
    "image",
    [
        "registry.istio.io/release/examples-bookinfo-details-v1:1.20.3",
        "docker.io/istio/examples-bookinfo-details-v1:1.20.3",
        "istio/examples-bookinfo-details-v1@sha256:0123",
    ],
)
def test_bookinfo_by_any_registry(image: str) -> None:
    assert argv(image)[-2:] == ["details", "9080"]


def test_versions_differ_by_environment() -> None:
    image = "registry.istio.io/release/examples-bookinfo-reviews-v3:1.20.3"
    assert resolve({"image": image}, ())[1] == {"ENABLE_RATINGS": "true", "STAR_COLOR": "red"}


def test_system_images_run_this_package() -> None:
    assert argv("ambit/ambit:0.1.0", args=["node", "run"]) == [sys.executable, "-m", "ambit", "node", "run"]


def test_arguments_replace_defaults_and_command_replaces_all() -> None:
    image = "registry.istio.io/release/tcp-echo-server:1.3"
    assert argv(image)[-2:] == ["9000,9001,9002", "hello"]
    assert argv(image, args=["9000", "hi"])[-2:] == ["9000", "hi"]
    assert argv("docker.io/curlimages/curl:8.16.0", command=["/bin/sleep", "infinity"]) == [
        "/bin/sleep",
        "infinity",
    ]
    assert argv("docker.io/library/busybox:1", args=["echo", "hello"]) == ["echo", "hello"]
    assert argv("docker.io/library/busybox:1") == ["sh"]


def test_the_image_of_curl_runs_a_program_that_arguments_name() -> None:
    """As its entry point does: `kubectl run tmp --image=curlimages/curl -- curl http://web`."""
    image = "docker.io/curlimages/curl:8.16.0"
    assert argv(image, args=["curl", "-s", "http://web"]) == ["curl", "-s", "http://web"]
    assert argv(image, args=["sh", "-c", "true"]) == ["sh", "-c", "true"]
    assert argv(image, args=["-s", "http://web"]) == ["curl", "-s", "http://web"]
    assert argv(image, args=["http://web"]) == ["curl", "http://web"]
    assert argv("registry.istio.io/release/tcp-echo-server:1.3", args=["sh", "x"])[-2:] == ["sh", "x"]
    assert len(argv("registry.istio.io/release/tcp-echo-server:1.3", args=["sh", "x"])) > 2


def test_the_users_entries_come_first() -> None:
    mine = ImageEntry("*/examples-helloworld-v1", ("sleep",), ("1",))
    assert argv("registry.istio.io/release/examples-helloworld-v1:1.0", mine) == ["sleep", "1"]


def test_a_command_of_the_host_needs_no_image() -> None:
    assert argv("ghcr.io/acme/thing", command=["sh", "-c", "true"]) == ["sh", "-c", "true"]


@pytest.mark.parametrize("container", [{}, {"command": ["/no/such/program"]}])
def test_unknown_images_say_what_to_type(container: dict[str, list[str]]) -> None:
    with pytest.raises(UnknownImage) as caught:
        argv("ghcr.io:5000/acme/thing:1.2", **container)
    assert caught.value.hint == "ambit local image add 'ghcr.io:5000/acme/thing' -- COMMAND [ARGUMENT...]"
    mapped = ImageEntry("ghcr.io:5000/acme/thing", ("sh",))
    assert argv("ghcr.io:5000/acme/thing:1.2", mapped) == ["sh"]


def test_a_mapped_command_that_does_not_exist_is_named() -> None:
    with pytest.raises(UnknownImage, match="stands for the program `no-such-program`") as caught:
        argv("x:1", ImageEntry("x", ("no-such-program",)))
    assert caught.value.hint == "ambit local image add 'x' -- COMMAND [ARGUMENT...], or install it"


def test_entries_are_checked() -> None:
    assert parse_entries(None) == ()
    assert parse_entries([{"pattern": "a*", "command": ["b"]}]) == (ImageEntry("a*", ("b",)),)
    with pytest.raises(BadInput, match="command"):
        parse_entries([{"pattern": "a"}])
