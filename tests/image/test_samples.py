import sys

import pytest
from image.samples import GENERAL, entries, sample_names


def test_every_image_of_the_samples_has_something_to_run() -> None:
    found = entries((*sample_names(), *GENERAL))
    assert "registry.istio.io/release/examples-bookinfo-reviews-v3:1.20.3" in found
    assert "docker.io/curlimages/curl:8.16.0" in found
    assert all(entry.command or entry.args for entry in found.values())


def test_nothing_names_the_machine_that_builds() -> None:
    texts = [text for entry in entries(sample_names()).values() for text in (*entry.command, *entry.args)]
    assert not [text for text in texts if sys.prefix in text or "src/ambit" in text]


def test_an_image_that_nothing_stands_for_is_named() -> None:
    with pytest.raises(LookupError, match="registry/unheard:1"):
        entries(["registry/unheard:1"])
