"""What entries of streams say, and what is made of those that say nothing."""

import pytest

from services.scheduler.intake import grant
from shared import messages


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({b"a": messages.encode(messages.Assignment(3, 2, "3.1"))}, "3.1"),
        ({b"a": messages.encode(messages.Assignment(3, 2))}, ""),
        ({b"a": b"\xc1"}, ""),
        ({}, ""),
    ],
)
def test_the_grant_by_which_a_call_came(fields: dict[bytes, bytes], said: str) -> None:
    assert grant((b"1-0", fields)) == said
