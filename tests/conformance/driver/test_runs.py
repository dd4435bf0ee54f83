"""What the suite is asked, and what is read from its answers."""

from pathlib import Path

import pytest

from tests.conformance import echo, reports, runs

REPORT = """
gatewayAPIChannel: standard
implementation: {version: v1.2.3}
mode: mesh
profiles:
- name: MESH-HTTP
  core: {result: success, statistics: {Failed: 0, Passed: 7, Skipped: 0}}
  extended:
    result: %s
    statistics: {Failed: 1, Passed: 5, Skipped: 1}
    failedTests: [MeshPorts]
    supportedFeatures: [MeshConsumerRoute, MeshHTTPRouteRewritePath]
    unsupportedFeatures: [MeshFrontend]
"""


def flags(run: runs.Run) -> dict[str, str]:
    words = run.arguments(Path("/tmp/report.yaml"))
    return dict(word.removeprefix("-").split("=", 1) for word in words if "=" in word)


def test_a_mesh_has_its_labels_and_says_its_features() -> None:
    (run,) = runs.chosen(("MESH-GRPC",))
    told = flags(run)
    assert told["conformance-profiles"] == "MESH-GRPC"
    assert told["namespace-labels"] == "istio.io/dataplane-mode=ambient,istio.io/use-waypoint=waypoint"
    assert "MeshConsumerRoute" in told["supported-features"].split(",")
    assert "gateway-class" not in told
    assert set(run.namespaces) == {"gateway-conformance-mesh", "gateway-conformance-mesh-consumer"}


def test_gateways_say_their_features_in_their_class() -> None:
    (run,) = runs.chosen(("GATEWAY-HTTP", "GATEWAY-TLS"))
    told = flags(run)
    assert told["gateway-class"] == "ambit"
    assert told["conformance-profiles"] == "GATEWAY-HTTP,GATEWAY-TLS"
    assert "supported-features" not in told
    assert run.namespaces == ()
    words = run.arguments(Path("/tmp/report.yaml"), experimental=True)
    (features,) = [word for word in words if word.startswith("-supported-features=")]
    assert "HTTPRouteRetry" in features


def test_profiles_of_both_kinds_are_two_runs() -> None:
    chosen = runs.chosen(("GATEWAY-UDP", "MESH-HTTP"))
    assert [run.mode for run in chosen] == ["mesh", "gateway"]
    assert runs.chosen(())[0].profiles == ("MESH-HTTP", "MESH-GRPC")


def test_results_are_those_of_whole_tests() -> None:
    log = (
        "--- FAIL: TestConformance (9.57s)\n"
        "    --- PASS: TestConformance/MeshBasic (0.05s)\n"
        "        --- PASS: TestConformance/MeshBasic/0_request (0.13s)\n"
        "    --- FAIL: TestConformance/MeshPorts (60.02s)\n"
        "    --- SKIP: TestConformance/HTTPRouteWeight (0.00s)\n"
    )
    assert runs.results(log) == {"MeshBasic": "PASS", "MeshPorts": "FAIL", "HTTPRouteWeight": "SKIP"}


@pytest.mark.parametrize(("result", "good"), [("success", True), ("failure", False), ("partial", False)])
def test_a_report_succeeds_when_all_of_it_does(result: str, good: bool) -> None:
    assert reports.succeeded(REPORT % result) is good


def test_a_report_without_profiles_is_no_success() -> None:
    assert not reports.succeeded("")
    assert not reports.succeeded("profiles: null")


def test_a_report_in_a_few_lines() -> None:
    assert reports.summary(REPORT % "failure") == [
        "MESH-HTTP     core 7 of 7, extended 5 of 7; 2 extended features claimed",
        "  failed: MeshPorts",
        "  not claimed: MeshFrontend",
    ]
    assert reports.file_name(REPORT % "failure") == "standard-v1.2.3-mesh-report.yaml"


def test_images_by_their_last_word() -> None:
    texts = [
        "  image: r.example/a/echo-basic:v1\n",
        "        image: r.example/a/echo-basic:v2\n  image: r.example/dns:1\n",
    ]
    assert echo.images_in(texts) == {
        "dns": ("r.example/dns:1",),
        "echo-basic": ("r.example/a/echo-basic:v1", "r.example/a/echo-basic:v2"),
    }


def test_the_suite_is_pinned() -> None:
    assert echo.version() == "v1.6.3"
