"""Does the word count count, however the text is cut into pieces?"""

import io
import itertools
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.wordcount import func


def last(*pieces: bytes) -> dict[str, object]:
    *_, report = func.reports(iter(pieces))
    return report


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("The cat. The dog, the cat!", {"the": 3, "cat": 2, "dog": 1}),
        ("don't well-known don\u2019t", {"don't": 1, "well-known": 1, "don\u2019t": 1}),
        (
            "-- 'quoted' -a- snake_case 3.14",
            {"quoted": 1, "a": 1, "snake": 1, "case": 1, "3": 1, "14": 1},
        ),
        ("Straße STRASSE", {"strasse": 2}),
        ("你好 世界 你好", {"你好": 2, "世界": 1}),
        ("", {}),
    ],
)
def test_words(text: str, most: dict[str, int]) -> None:
    assert last(text.encode()) == {
        "words": sum(most.values()),
        "distinct": len(most),
        "most": most,
        "done": True,
    }


@given(st.text("ab'- \n.é世", max_size=60), st.lists(st.integers(0, 200), max_size=6))
def test_the_cuts_make_no_difference(text: str, cuts: list[int]) -> None:
    raw = text.encode()
    places = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    pieces = [raw[start:end] for start, end in itertools.pairwise(places)]
    counted = last(*pieces)
    assert counted == last(raw)
    assert counted["words"] == len(func.WORD.findall(text))


def test_counts_come_after_each_piece() -> None:
    told = func.reports(iter([b"one two ", b"two"]))
    assert next(told) == {"words": 2, "distinct": 2, "most": {"one": 1, "two": 1}}
    assert next(told)["words"] == 2
    assert next(told) == {"words": 3, "distinct": 2, "most": {"two": 2, "one": 1}, "done": True}


def test_a_text_without_spaces_is_counted_in_parts() -> None:
    counts = func.Counts()
    for _ in range(100):
        counts.add("x" * 500)
        assert len(counts.rest) < func.LONGEST_WORD
    counts.finish()
    assert sum(len(word) * times for word, times in counts.words.items()) == 50_000


def test_bytes_that_are_no_text_are_passed_over() -> None:
    assert last(b"one \xff\xfe two \xe4")["most"] == {"one": 1, "two": 1}


def test_a_text_that_breaks_off_says_so() -> None:
    def broken() -> Iterator[bytes]:
        yield b"one two three"
        raise func.Problem("it ends early")

    *_, report = func.reports(broken())
    assert report == {
        "words": 2,
        "distinct": 2,
        "most": Counter(one=1, two=1),
        "error": "it ends early",
    }


@pytest.mark.parametrize(
    "address", ["", "file:///etc/passwd", "ftp://a/", "http://", "http://a b/"]
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(func.Problem):
        next(func.fetched_pieces(address))


def test_the_next_call_begins_where_the_last_one_ended() -> None:
    calls = io.BytesIO(
        b"GET / HTTP/1.1\r\nContent-Length: 7\r\n\r\none two"
        b"GET / HTTP/1.1\r\nRequest_url: http://h/r/a/b?from=none\r\nContent-Length: 4\r\n\r\nbody"
        b"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
    )
    assert b"".join(func.text_of(calls)) == b"one two"
    with pytest.raises(func.Problem, match="from=none"):
        next(func.text_of(calls))
    assert list(func.text_of(calls)) == []
    assert func.text_of(calls) is None


def test_chunks() -> None:
    assert func.chunk(b"x" * 17) == b"11\r\n" + b"x" * 17 + b"\r\n"
    assert func.chunk(b"") == b"0\r\n\r\n"
