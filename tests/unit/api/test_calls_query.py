"""What a client may ask about calls, and how it is told what is wrong."""

import pytest

from services.api import calls, cursors
from services.api.problems import BadRequest
from services.api.records import Filter, first_id
from shared import timestamps

AN_ID = "01938f6e-0000-7000-8000-000000000000"


def test_all_filters_at_once() -> None:
    query = {
        "path": "/p",
        "status": "error",
        "from": "2026-01-31T12:00:00Z",
        "to": "1769860801000",
        "limit": "7",
        "cursor": cursors.encode(AN_ID),
    }
    expected = Filter("/p", "error", 1769860800000, 1769860801000, AN_ID)
    assert calls.wanted(query) == (expected, 7)


@pytest.mark.parametrize("written", ["/a/b", "a/b", "//a/b/", "/a/./b"])
def test_a_route_is_found_by_every_spelling_of_its_path(written: str) -> None:
    assert calls.wanted({"route": written})[0] == Filter(path="/a/b")


def test_no_filter_is_the_newest_hundred() -> None:
    assert calls.wanted({}) == (Filter(), 100)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"status": "done"}, "status must be one of queued, running, success"),
        ({"from": "yesterday"}, "from must be RFC 3339 .* not 'yesterday'"),
        ({"to": "2026-01-31T12:00:00"}, "to must be RFC 3339"),
        ({"to": "9" * 30}, "to must be RFC 3339"),
        ({"limit": "0"}, "limit must be"),
        ({"cursor": "!"}, "cursor must be"),
        ({"cursor": cursors.encode("\u00fc")}, "cursor must be a next_cursor of the same list"),
    ],
)
def test_a_wrong_filter_is_named(query: dict[str, str], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        calls.wanted(query)


@pytest.mark.parametrize("text", ["-1", "61", "soon", "nan", "inf", ""])
def test_a_wrong_wait_is_named(text: str) -> None:
    with pytest.raises(BadRequest, match="wait must be seconds from 0 to 60"):
        calls.wait_s({"wait": text})


def test_a_plus_lost_in_a_query_string_is_found_again() -> None:
    assert timestamps.parse("2026-01-31T14:00:00 02:00") == 1769860800000
    assert timestamps.rfc3339(1769860800007) == "2026-01-31T12:00:00.007Z"


def test_ids_sort_by_time() -> None:
    earlier, later = first_id(1769860800000), first_id(1769860800001)
    assert earlier < f"{earlier}-7000-8000-000000000000" < later
