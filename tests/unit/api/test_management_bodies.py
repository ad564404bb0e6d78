"""Are bodies read as leniently as the guide needs, checked by the rules, and merged right?"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api import cursors, jsontext, merging, paths, reading, schemas, validation
from services.api.models import App, Route
from services.api.problems import BadRequest

LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8)
NESTED = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
FILLED = st.lists(NESTED, min_size=1, max_size=3) | st.dictionaries(
    st.text(max_size=4), NESTED, min_size=1, max_size=3
)


@given(NESTED)
def test_json_is_read_as_it_is(value: object) -> None:
    assert jsontext.parse(json.dumps(value).encode()) == value


@given(FILLED)
def test_one_comma_too_many_is_forgiven(value: object) -> None:
    text = json.dumps(value)
    assert jsontext.parse(f"{text[:-1]} , {text[-1]} and more".encode()) == value


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (b"", "line 1 column 1"),
        (b"[1,,]", "line 1 column 5"),
        (b"[,]", "line 1 column 2"),
        (b'{\n  "a",}', "line 2 column 7"),
        (b'{"a": "x,]}', "line 1 column 7"),
        (b'["NaN", NaN]', "line 1 column 9"),
        (b'{"a": "\xff"}', "line 1 column 8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5000, "a number is too long"),
        (b"[" * 600 + b'"\\u0041"' + b"]" * 600, "nested too deeply"),
    ],
)
def test_other_text_is_refused_with_its_place(text: bytes, where: str) -> None:
    with pytest.raises(BadRequest, match=r"^Invalid JSON: ") as refused:
        jsontext.parse(text)
    assert where in refused.value.message


@pytest.mark.parametrize("end", [b"", b"\\"])
def test_quotes_in_a_string_that_nobody_closes_are_read_once(end: bytes) -> None:
    """Each quote used to be taken for a beginning: a megabyte took hours, and the loop stood."""
    with pytest.raises(BadRequest, match="line 1 column 6: Unterminated string"):
        jsontext.parse(b'{"a":"' + b'\\"' * 500_000 + end)


def test_half_a_surrogate_pair_is_replaced() -> None:
    assert jsontext.parse(b'{"\\ud800": ["\\ud83d\\ude00"]}') == {"\ufffd": ["\U0001f600"]}


def test_wrong_types_are_named_with_the_fix() -> None:
    body = {"memory": "128", "cpus": True, "headers": {"A": "x"}, "config": {"N": 1}, "type": 1}
    with pytest.raises(BadRequest) as refused:
        reading.sent(
            json.dumps({"route": body}).encode(), "route", schemas.RouteFields(), "Missing"
        )
    assert set(refused.value.message.removeprefix("Invalid JSON: ").split("; ")) == {
        "route.memory must be a whole number, without quotes: write 1",
        "route.cpus must be a number, without quotes: write 0.5",
        'route.headers.A must be a list of strings: write ["x"]',
        'route.config.N must be a string: write "1"',
        'route.type must be a string: write "1"',
    }


def test_of_many_unknown_fields_some_are_named() -> None:
    """Of each it was guessed what was meant: a mebibyte of them stopped the loop for seconds."""
    body = {"route": {"image": "i", **{f"memori{number}": 1 for number in range(60_000)}}}
    sent = reading.sent(json.dumps(body).encode(), "route", schemas.RouteFields(), "Missing")
    assert sent.fields == {"image": "i"}
    assert len(sent.warnings) == reading.NAMED_MAX + 1
    assert "did you mean route.memory?" in sent.warnings[0]
    assert sent.warnings[-1] == "59980 more unknown fields ignored"


def test_a_wrong_value_that_is_large_or_deep_is_not_repeated() -> None:
    deep = b'{"route": {"config": {"N": ' + b"[" * 950 + b"]" * 950 + b"}}}"
    with pytest.raises(BadRequest) as refused:
        reading.sent(deep, "route", schemas.RouteFields(), "Missing")
    assert refused.value.message == ('Invalid JSON: route.config.N must be a string: write "..."')


@pytest.mark.parametrize(
    ("fields", "failure"),
    [
        ({"path": "/%zz"}, "Path malformed"),
        ({"path": "/a?b"}, "Path malformed"),
        ({"path": "/a%00b"}, "Path malformed"),
        ({"path": "/a%0Ab"}, "Path malformed"),
        ({"path": "/a%20"}, "Path malformed: it ends in a space"),
        ({"path": "/%3Aa"}, "Dynamic URL is not allowed"),
        ({"memory": 5}, "Invalid route Memory: from 6 to 1048576 MB"),
        ({"timeout": 10**12}, "Invalid route timeout: from 1 to 86400 seconds"),
        ({"cpus": float("inf")}, "Invalid route CPUs: from 0.01 to 1024.0 cores"),
        ({"format": "xml"}, "Invalid route Format"),
        ({"isolation": "none"}, "Invalid route Isolation"),
        ({"max_attempts": 21}, "Invalid route MaxAttempts: from 1 to 20 attempts"),
        ({"retries": -1}, "Negative Retries"),
        ({"retries": 21}, "Invalid route Retries: from 0 to 20 retries"),
        ({"retry_delay": 3601}, "Invalid route RetryDelay: from 1 to 3600 seconds"),
        ({"min_sandboxes": -1}, "Negative MinSandboxes"),
        ({"min_sandboxes": 101}, "Invalid route MinSandboxes: from 0 to 100 sandboxes"),
        ({"headers": {"A": ["x\r\nB: y"]}}, "Invalid route Headers: A has a line break"),
        ({"headers": {"a b": ["x"]}}, "Invalid route Headers: 'a b' is no header name"),
        ({"headers": {"Content-Length": ["1"]}}, "is decided by the platform"),
        ({"image": "i" * 513}, "Invalid route Image: at most 512 characters"),
    ],
)
def test_routes_that_break_rules(fields: dict[str, Any], failure: str) -> None:
    with pytest.raises(validation.Invalid, match=r"^validation failure list:") as refused:
        validation.check_new_route("myapp", {"path": "/a", "image": "i", **fields})
    assert failure in refused.value.message


@pytest.mark.parametrize(
    "config", [{"": "1"}, {"A=B": "1"}, {"A": "\0"}, {"A": "x" * 2**17}, {"A": "x" * 2**18}]
)
def test_config_that_is_no_environment(config: dict[str, str]) -> None:
    with pytest.raises(validation.Invalid, match="Invalid app config"):
        validation.check_app(App("myapp", config))
    with pytest.raises(validation.Invalid, match="Invalid route config"):
        validation.check_route(Route("myapp", "/a", "i", config=config))


def test_a_patch_leaves_what_it_does_not_say() -> None:
    route = Route("a", "/b", "i", timeout=5, config={"A": "1"}, headers={"x-a": ["1"]})
    assert merging.patched_route(route, {"timeout": 0, "image": "", "config": {}}) == route
    patched = merging.patched_route(route, {"headers": {"X-A": ["2"], "x-new": ["3"]}})
    assert patched.headers == {"x-a": ["1", "2"], "X-New": ["3"]}
    assert merging.patched_route(patched, {"headers": {"X-a": []}}).headers == {"X-New": ["3"]}


@pytest.mark.parametrize("word", ["default", "http", "json", "http-stream"])
def test_every_format_can_be_asked_for(word: str) -> None:
    validation.check_changed_fields({"format": word, "isolation": "call", "min_sandboxes": 100})


def test_of_retries_zero_is_a_change() -> None:
    route = Route("a", "/b", "i", retries=3, max_attempts=5)
    changed = merging.patched_route(route, {"retries": 0, "max_attempts": 0, "retry_delay": 0})
    assert (changed.retries, changed.max_attempts, changed.retry_delay) == (0, 5, 1)


def test_only_of_some_fields_is_zero_a_change() -> None:
    route = Route("a", "/b", "i", timeout=5, min_sandboxes=3)
    assert merging.patched_route(route, {"timeout": 0}) == route
    assert merging.patched_route(route, {"min_sandboxes": 0}).min_sandboxes == 0
    assert merging.patched_route(route, {"min_sandboxes": 7}).min_sandboxes == 7
    assert merging.new_route("a", {"path": "/b", "image": "i", "min_sandboxes": 0}) == Route(
        "a", "/b", "i"
    )


def test_an_image_that_is_replaced_is_the_newest_of_the_previous_ones() -> None:
    route = Route("a", "/b", "v0")
    for number in range(1, 13):
        route = merging.patched_route(route, {"image": f"v{number}", "timeout": number})
    assert route.previous_images == tuple(f"v{number}" for number in range(11, 1, -1))
    back = merging.patched_route(route, {"image": route.previous_images[0]})
    assert (back.image, back.previous_images[:2]) == ("v11", ("v12", "v11"))


@pytest.mark.parametrize("fields", [{"image": "v1"}, {"image": ""}, {"timeout": 5}, {}])
def test_a_patch_that_leaves_the_image_leaves_the_previous_ones(fields: dict[str, Any]) -> None:
    route = Route("a", "/b", "v1", previous_images=("v0",))
    assert merging.patched_route(route, fields).previous_images == ("v0",)


@pytest.mark.parametrize("sent", [["evil"], "evil", {"0": 1}])
def test_nobody_sets_previous_images(sent: object) -> None:
    fields = {"path": "/b", "image": "v1", "previous_images": sent}
    raw = json.dumps({"route": fields}).encode()
    taken = reading.sent(raw, "route", schemas.RouteFields(), "Missing").fields
    assert merging.new_route("a", taken) == Route("a", "/b", "v1")
    assert merging.patched_route(Route("a", "/b", "v1"), taken) == Route("a", "/b", "v1")


def test_the_longest_pinned_name_is_allowed() -> None:
    name = "127.0.0.1:5000/" + "n" * 240 + ":" + "t" * 128 + "@sha256:" + "0" * 64
    validation.check_new_route("myapp", {"path": "/a", "image": name})


@given(st.text())
def test_a_clean_path_stays_clean(path: str) -> None:
    cleaned = paths.clean(path)
    assert cleaned.startswith("/")
    assert "//" not in cleaned
    assert paths.clean(cleaned) == cleaned


@given(st.text(), st.integers())
def test_cursors_come_back(text: str, number: int) -> None:
    encoded = cursors.encode(text.encode(errors="replace").decode(), number)
    assert cursors.decode(encoded, str, int)[1] == number


@given(st.text())
def test_no_text_breaks_a_cursor(text: str) -> None:
    try:
        cursors.decode(text, str)
    except BadRequest as error:
        assert error.message.startswith("cursor must be")  # noqa: PT017 (both ends are fine)


def test_half_a_surrogate_pair_is_no_cursor() -> None:
    """MySQL's driver failed to write it down, and that was a 500."""
    with pytest.raises(BadRequest, match="cursor must be"):
        cursors.decode("WyJcdWQ4MDAiXQ", str)  # ["\\ud800"]
