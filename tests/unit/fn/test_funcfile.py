"""Is a function's file read with all its fields, and is a mistake named with line and spelling?"""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from fn import funcfields, funcfile
from fn.errors import FnError
from services.api import validation
from shared import messages

WHOLE = """\
# A greeting
name: me/greet      # the image
version: 0.0.7
runtime: python:3.11
entrypoint: python3 func.py
cmd: --loud
base: python:3.12-slim
build_base: python:3.12
build:
  - make
type: async
format: json
path: /greet
memory: 256
cpus: 0.5
timeout: 1m30s
idle_timeout: 5m
max_concurrency: 4
min_sandboxes: 1
max_attempts: 5
retries: 2
retry_delay: 1m30s
isolation: call
headers:
  Content-Type: text/html
  X-Both: [one, two]
config:
  DB: ${HOST}:$PORT
  PRICE: 5$$
  LEVEL: 3
  DEBUG: true
jwt_key: secret
tests:
  - name: greets
    in: Ada
    out: Hello, Ada!
    env: {CITY: Rome}
"""


def parse(text: str, name: str = "func.yaml") -> funcfile.FuncFile:
    return funcfile.parse(text, Path(name))


def complaint(text: str, name: str = "func.yaml") -> FnError:
    with pytest.raises(FnError) as caught:
        parse(text, name)
    return caught.value


def test_every_field_is_read_in_the_platforms_terms() -> None:
    file = parse(WHOLE)
    assert file.fields == {
        "name": "me/greet",
        "version": "0.0.7",
        "runtime": "python:3.11",
        "entrypoint": "python3 func.py",
        "cmd": "--loud",
        "base": "python:3.12-slim",
        "build_base": "python:3.12",
        "build": ["make"],
        "type": "async",
        "format": "json",
        "path": "/greet",
        "memory": 256,
        "cpus": 0.5,
        "timeout": 90,
        "idle_timeout": 300,
        "max_concurrency": 4,
        "min_sandboxes": 1,
        "max_attempts": 5,
        "retries": 2,
        "retry_delay": 90,
        "isolation": "call",
        "headers": {"Content-Type": ["text/html"], "X-Both": ["one", "two"]},
        "config": {"DB": "${HOST}:$PORT", "PRICE": "5$$", "LEVEL": "3", "DEBUG": "true"},
        "jwt_key": "secret",
        "tests": [{"name": "greets", "in": "Ada", "out": "Hello, Ada!", "env": {"CITY": "Rome"}}],
    }
    named = {rule.name or key for key, rule in funcfields.FIELDS.items()}
    assert set(file.fields) == named


def test_config_is_filled_in_from_the_environment() -> None:
    config = parse(WHOLE).config({"HOST": "db", "PORT": "1"})
    assert config == {"DB": "db:1", "PRICE": "5$", "LEVEL": "3", "DEBUG": "true"}


def test_what_needs_a_variable_that_is_not_set_is_left_out() -> None:
    file = parse(WHOLE)
    assert file.config({"HOST": "db"}) == {"PRICE": "5$", "LEVEL": "3", "DEBUG": "true"}
    assert file.unset({"HOST": "db"}) == ["DB"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nmemroy: 128", "func.yaml:2: unknown field `memroy`; did you mean `memory`?"),
        (
            "name: a\nmax-concurrency: 2",
            "func.yaml:2: unknown field `max-concurrency`; did you mean",
        ),
        ("name: a\nMemory: 2", "func.yaml:2: unknown field `Memory`; did you mean `memory`?"),
        ("name: a\nzzz: 2", "func.yaml:2: unknown field `zzz`"),
        ("name: a\n\n\nmemory: 128MB", "func.yaml:4: `memory` is '128MB': it has to be a whole"),
        ("name: a\nmemory: true", "func.yaml:2: `memory` is 'true'"),
        ("name: a\ncpus: many", "func.yaml:2: `cpus` is 'many'"),
        ("name: a\ntype: asinc", "func.yaml:2: `type` is 'asinc': it is one of sync, async; did"),
        ("name: a\nformat: hot", "func.yaml:2: `format` is 'hot'"),
        ("name: a\ntimeout: 30 s", "func.yaml:2: `timeout` is '30 s'"),
        ("name: a\ntimeout: 1500ms", "func.yaml:2: `timeout` is '1500ms'"),
        ("name: a\npath: greet", "func.yaml:2: `path` is 'greet': it begins with /"),
        ("name: a\nversion: 1.0", "func.yaml:2: `version` is '1.0'"),
        ("name: a:1", "func.yaml:1: `name` is a:1: a name has no tag"),
        ("name: A B", "func.yaml:1: `name` is 'A B'"),
        ("name: a\nconfig:\n  A: 1\n  B: [2]", "func.yaml:4: `config` has no text for `B`"),
        ("name: a\nheaders: text", "func.yaml:2: `headers` must be a mapping"),
        (
            "name: a\ntests:\n- in: x\n  ot: y",
            "func.yaml:4: `tests` has a test with unknown field `ot`",
        ),
        ("name: a\ntests:\n- status: no", "func.yaml:3: `tests` has a test whose `status` is"),
        ("name: a\ntimeout: 25h", "func.yaml:2: `timeout` is '25h': at most 24h is possible"),
        ("name: a\nmin_sandboxes: 101", "func.yaml:2: `min_sandboxes` is 101: at most 100 is"),
        ("name: a\nname: b", 'func.yaml:2: found duplicate key "name"'),
        ("name: a\n  memory: 1\n", "func.yaml:2: mapping values are not allowed here"),
        ("memory: 128", "func.yaml: `name` is missing"),
        ("", "func.yaml: no fields in it"),
        ("- a", "func.yaml: no fields in it"),
        ("name: a\nentrypoint: sh -c 'x", 'func.yaml:2: `entrypoint` is "sh -c \'x": a quote in'),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, message: str) -> None:
    error = complaint(text)
    assert error.message.startswith(message)
    assert error.hint
    assert "\n" not in error.message + error.hint


def test_a_mistake_in_json_is_told_with_its_line() -> None:
    text = '{\n\t"name": "a",\n\t"memroy": 1\n}'
    message = complaint(text, "func.json").message
    assert message == "func.json:3: unknown field `memroy`; did you mean `memory`?"


def test_the_fn_projects_fields_are_passed_over_with_a_word() -> None:
    file = parse("schema_version: 20180708\nname: a\nrun_image: x\ntriggers: []\n")
    assert file.fields == {"name": "a", "base": "x"}
    assert [w.partition(": ")[0] for w in file.warnings] == ["func.yaml:1", "func.yaml:4"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("name: a\nversion: 0.0.1\n", "name: a\nversion: 0.0.2\n"),
        ("# x\nversion:   '0.0.1'  # y\nname: a", "# x\nversion:   '0.0.2'  # y\nname: a"),
        ('name: a\nversion: "0.0.1"\n', 'name: a\nversion: "0.0.2"\n'),
        ("a: 1\nname: b\n", "a: 1\nversion: 0.0.2\nname: b\n"),
        ("a: 1\r\nname: b\r\n", "a: 1\r\nversion: 0.0.2\r\nname: b\r\n"),
        ("# \x85 \u2028\nversion: 0.0.1\nname: b\n", "# \x85 \u2028\nversion: 0.0.2\nname: b\n"),
    ],
)
def test_a_new_version_changes_nothing_else(before: str, after: str) -> None:
    assert funcfile.with_version(before, "0.0.2") == after


@pytest.mark.parametrize("before", ['{"name": "a",\n "version":"0.0.1", "x": 1}', '{"name": "a"}'])
def test_a_new_version_in_json(before: str) -> None:
    expected: dict[str, Any] = {**json.loads(before), "version": "0.0.2"}
    assert json.loads(funcfile.with_version(before, "0.0.2", json=True)) == expected


def test_bump_keeps_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "func.yaml").write_text(WHOLE)
    file = funcfile.load(tmp_path)
    funcfile.write_version(file, funcfile.bumped(file.version))
    assert (tmp_path / "func.yaml").read_text() == WHOLE.replace("0.0.7", "0.0.8")


def test_line_ends_of_windows_stayed_not_when_the_version_was_written(tmp_path: Path) -> None:
    (tmp_path / "func.yaml").write_bytes(b"name: a\r\nversion: 0.0.1\r\n")
    funcfile.write_version(funcfile.load(tmp_path), "0.0.2")
    assert (tmp_path / "func.yaml").read_bytes() == b"name: a\r\nversion: 0.0.2\r\n"


def test_a_version_before_a_release_could_not_be_bumped() -> None:
    assert funcfile.bumped("1.2.9-rc1") == "1.2.10"


def test_a_network_of_its_own_could_not_be_asked_for() -> None:
    assert parse("name: a\nisolation: network").fields["isolation"] == "network"


def test_values_are_those_of_the_platform() -> None:
    words = (funcfields.TYPES, funcfields.FORMATS, funcfields.ISOLATIONS)
    assert words == tuple(map(get_args, (messages.Mode, messages.Format, messages.Isolation)))
    assert funcfields.MEMORY_MB == (validation.MEMORY_MIN_MB, validation.MEMORY_MAX_MB)
    most = (
        funcfields.TIMEOUT_S,
        funcfields.MAX_CONCURRENCY,
        funcfields.MIN_SANDBOXES,
        funcfields.MAX_ATTEMPTS,
        funcfields.RETRIES,
    )
    assert [limits[1] for limits in most] == [
        validation.TIMEOUT_MAX_S,
        validation.MAX_CONCURRENCY_MAX,
        validation.MIN_SANDBOXES_MAX,
        validation.MAX_ATTEMPTS_MAX,
        validation.RETRIES_MAX,
    ]


def test_a_field_twice_was_called_no_yaml() -> None:
    assert (
        complaint("name: a\nname: b").hint == "Each name can be there once: remove one of the two."
    )


def test_a_field_knows_its_line() -> None:
    file = parse("name: a\n\nruntime: go\nrun_image: x\n")
    found = [file.where(name) for name in ("runtime", "base", "memory")]
    assert found == ["func.yaml:3", "func.yaml:4", "func.yaml"]


def test_two_files_are_one_too_many(tmp_path: Path) -> None:
    (tmp_path / "func.yaml").write_text("name: a")
    (tmp_path / "func.json").write_text('{"name": "a"}')
    with pytest.raises(FnError, match=r"both func\.yaml and func\.json"):
        funcfile.load(tmp_path)


def test_numbers_and_dates_were_not_as_they_are_written() -> None:
    written = {"A": "1.10", "B": "0123", "C": "0x10", "D": "True", "E": "1e3", "F": "2024-01-31"}
    lines = "".join(f"  {name}: {value}\n" for name, value in written.items())
    fields = parse(f"name: a\nconfig:\n{lines}tests:\n- in: 1.50\n  out: 007\n").fields
    assert fields["config"] == written
    assert fields["tests"] == [{"in": "1.50", "out": "007"}]


@pytest.mark.parametrize("field", ["config", "headers", "tests"])
def test_a_field_with_nothing_below_it_was_a_mistake(field: str) -> None:
    assert not parse(f"name: a\n{field}:\n  # - later\n").fields[field]


def test_a_number_that_is_missing_was_called_none() -> None:
    with pytest.raises(FnError, match="`memory` is '': it has to be a whole number"):
        parse("name: a\nmemory:\n")


def test_a_merged_field_had_no_line() -> None:
    with pytest.raises(FnError, match="`memory` is 5: at least 6"):
        parse("config: &some {memory: 5}\n<<: *some\nname: a\n")


def test_a_mistake_in_the_letters_was_of_two_lines() -> None:
    with pytest.raises(FnError) as caught:
        parse("name: a\0b\n")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{name: a}\n", '{"version": "0.0.2", name: a}\n'),
        ('{"name": "a"}', '{"version": "0.0.2", "name": "a"}'),
        ("\ufeffversion: 0.0.1\nname: a\n", "\ufeffversion: 0.0.2\nname: a\n"),
        ("\ufeffname: a\n", "\ufeffversion: 0.0.2\nname: a\n"),
    ],
)
def test_a_new_version_broke_the_file(before: str, after: str) -> None:
    assert funcfile.with_version(before, "0.0.2") == after
    assert parse(after).version == "0.0.2"
