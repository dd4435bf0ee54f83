"""Reports of the suite: their file names, and what they say in a few lines."""

from typing import Any

import yaml


def file_name(report: str) -> str:
    """As the Gateway API's collection of reports wants it: channel, version of the implementation, mode."""
    told = yaml.safe_load(report)
    return f"{told['gatewayAPIChannel']}-{told['implementation']['version']}-{told['mode']}-report.yaml"


def succeeded(report: str) -> bool:
    """Every profile passed, core and extended."""
    profiles = _profiles(report)
    parts = [part for profile in profiles for part in _parts(profile).values()]
    return bool(profiles) and all(part["result"] == "success" for part in parts)


def summary(report: str) -> list[str]:
    """One line for each profile, and one for each test that failed and each feature that is not claimed."""
    lines = []
    for profile in _profiles(report):
        counts = []
        failed: list[str] = []
        for name, part in _parts(profile).items():
            numbers = part["statistics"]
            run = numbers["Passed"] + numbers["Failed"] + numbers["Skipped"]
            counts.append(f"{name} {numbers['Passed']} of {run}")
            failed += part.get("failedTests") or []
        extended = profile.get("extended", {})
        features = len(extended.get("supportedFeatures") or [])
        lines.append(f"{profile['name']:<13} {', '.join(counts)}; {features} extended features claimed")
        lines += [f"  failed: {name}" for name in failed]
        lines += [f"  not claimed: {name}" for name in extended.get("unsupportedFeatures") or []]
    return lines


def _profiles(report: str) -> list[dict[str, Any]]:
    return (yaml.safe_load(report) or {}).get("profiles") or []


def _parts(profile: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: profile[name] for name in ("core", "extended") if name in profile}
