"""Which callbacks are made at one time?"""

import pytest

from services.api.callbacks import Taken, fair


def due(*apps: str) -> list[Taken]:
    return [Taken(str(n), app, "https://x.example", "", 1, []) for n, app in enumerate(apps)]


@pytest.mark.parametrize(
    ("under_way", "taken"),
    [({}, "0 1 3"), ({"slow": 1}, "0 3"), ({"slow": 2}, "3"), ({"other": 2}, "0 1")],
)
def test_an_app_has_its_share_and_no_more(under_way: dict[str, int], taken: str) -> None:
    found = fair(due("slow", "slow", "slow", "other"), 2, under_way)
    assert " ".join(one.call_id for one in found) == taken
