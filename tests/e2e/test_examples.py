"""Do the examples pass the tests that their func.yaml has?"""

import pytest

from tests.e2e.workshop import EXAMPLES, Workshop

NAMES = sorted(folder.parent.name for folder in EXAMPLES.glob("*/func.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_what_fn_test_says(workshop: Workshop, name: str) -> None:
    workshop.build(name)
    said = workshop.fn(name, "test").good()
    assert "tests passed" in said.out
    assert "FAILED" not in said.out


def test_they_are_all_there() -> None:
    assert NAMES == ["etcd_v3", "thumbnail", "twitter", "webhook", "wordcount"]
