"""The time of a sandbox is that between the two lines that containerd writes for it."""

from tests.kubernetes.starts import sandbox_seconds

LINE = (
    'time="2026-11-20T12:29:{}Z" level={} msg="RunPodSandbox for &PodSandboxMetadata{{Name:{},'
    "Uid:3321ce22-c250-4706-808c-4f5756853bfd,Namespace:{},Attempt:0,}}{}\n"
)


def test_sandboxes_of_one_namespace_are_measured() -> None:
    log = (
        LINE.format("39.220885476", "info", "web", "one", '"')
        + LINE.format("39.500000000", "info", "web", "two", '"')
        + LINE.format("39.720885476", "info", "web", "one", ' returns sandbox id \\"41440d5ea7b2\\""')
        + LINE.format("40.000000000", "info", "late", "one", '"')
        + LINE.format("41.000000000", "error", "late", "one", ' failed, error" error="no network"')
    )
    assert sandbox_seconds(log, "one") == [0.5]
