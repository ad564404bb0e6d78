"""Does a deployment change what the file says and leave alone what it does not speak of?"""

from pathlib import Path
from typing import Any

import pytest

from fn import deploying, framing, funcfile, locally, trying


def file_of(text: str) -> funcfile.FuncFile:
    return funcfile.parse("name: me/greet\n" + text, Path("func.yaml"))


def test_a_route_gets_every_field_that_the_file_has() -> None:
    text = "memory: 256\nmin_sandboxes: 0\njwt_key: k\nidle_timeout: 1m\nconfig: {A: $B}\n"
    assert deploying.wanted(file_of(text), {"B": "b"}, "image:1") == {
        "image": "image:1",
        "memory": 256,
        "min_sandboxes": 0,
        "jwt_key": "k",
        "idle_timeout": 60,
        "config": {"A": "b"},
    }


ROUTE: dict[str, Any] = {
    "image": "me/greet:1",
    "memory": 128,
    "headers": {"X-A": ["1"], "X-Other": ["2"]},
    "config": {"A": "1", "SET_BY_HAND": "2"},
}


@pytest.mark.parametrize(
    ("new", "changed"),
    [
        ({"memory": 128, "image": "me/greet:1"}, {}),
        ({"memory": 256}, {"memory": 256}),
        ({"config": {"A": "1"}}, {}),
        ({"config": {"A": "2"}}, {"config": {"A": "2"}}),
        ({"config": {"A": "", "NOT_THERE": ""}}, {"config": {"A": ""}}),
        ({"headers": {"x-a": ["1"]}}, {}),
        ({"headers": {"X-A": ["3"]}}, {"headers": {"X-A": ["3"]}}),
    ],
)
def test_only_what_differs_is_changed(new: dict[str, Any], changed: dict[str, Any]) -> None:
    assert deploying.difference(ROUTE, new) == changed


def test_values_of_a_header_are_replaced_not_added() -> None:
    sent = deploying.patch({"headers": {"X-A": ["3"]}})["headers"]
    assert list(sent.values()) == [[], ["3"]]
    assert {name.lower() for name in sent} == {"x-a"}


def test_secrets_are_not_shown() -> None:
    lines = deploying.told({}, {"jwt_key": "s", "config": {"DB_PASSWORD": "s", "LEVEL": "3"}})
    assert lines == [
        "jwt_key: (none) -> (secret)",
        "config.DB_PASSWORD: (none) -> (secret)",
        "config.LEVEL: (none) -> 3",
    ]


def outcome(body: bytes, failure: str = "", log: bytes = b"", status: int = 200) -> locally.Outcome:
    return locally.Outcome(framing.Answer(status, (), body), failure, log)


@pytest.mark.parametrize(
    ("test", "became", "faults"),
    [
        ({"out": "a"}, outcome(b"a\n"), []),
        ({"out": "a"}, outcome(b"b"), ["--- should be", "+++ is", "@@ -1 +1 @@", "-a", "+b"]),
        ({}, outcome(b"", "exit code 3", b"why\n"), ["the call failed: exit code 3", "log: why"]),
        ({"err": "why"}, outcome(b"", "exit code 3", b"that is why\n"), []),
        ({"err": "why"}, outcome(b"", log=b"no\n"), ["the log lacks 'why'", "log: no"]),
        ({}, outcome(b"", status=404), ["its status is 404"]),
        ({"status": 404}, outcome(b"", status=404), []),
        ({"status": 404}, outcome(b""), ["its status is 200, and should be 404"]),
        ({"out": "é"}, outcome(b"\xff"), ["1 bytes, and should be 2; they differ from byte 0 on"]),
    ],
)
def test_what_a_test_shows(
    test: dict[str, Any], became: locally.Outcome, faults: list[str]
) -> None:
    verdict = trying.judge(test, became, Path(), 1)
    assert verdict.faults == faults
    assert verdict.name == "test 1"


def test_a_file_is_compared_byte_by_byte(tmp_path: Path) -> None:
    (tmp_path / "wanted").write_bytes(b"\x89PNG\n")
    test = {"name": "shrinks", "out_file": "wanted"}
    assert trying.judge(test, outcome(b"\x89PNG\n"), tmp_path, 1).faults == []
    verdict = trying.judge(test, outcome(b"\x89PNG"), tmp_path, 1)
    assert verdict.faults == ["4 bytes, and should be 5; they differ from byte 4 on"]
