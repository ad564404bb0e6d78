"""The pure ground: ids, environment, settings, addresses, messages, the table of errors."""

import dataclasses
import doctest
import uuid

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from marshmallow.validate import OneOf

from shared import clock, environment, errors, ids, messages, timestamps, urls
from shared.settings import at_least, log_level, read, setting


@pytest.mark.parametrize("module", [environment, ids, timestamps, urls], ids=lambda m: m.__name__)
def test_worked_examples_hold(module: object) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_call_ids_are_unique_and_sort_by_time() -> None:
    made = [ids.new_call_id() for _ in range(10_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_a_call_id_is_a_version_7_uuid_that_knows_its_time() -> None:
    before = clock.epoch_ms()
    call_id = ids.new_call_id()
    assert uuid.UUID(call_id).version == 7
    time_ms = ids.call_time_ms(call_id)
    assert time_ms is not None
    assert before <= time_ms <= clock.epoch_ms()


@pytest.mark.parametrize("text", ["", "x", str(uuid.uuid4()), "../etc"])
def test_what_is_no_call_id_has_no_time(text: str) -> None:
    assert ids.call_time_ms(text) is None


def test_a_process_that_restarts_gets_a_new_id() -> None:
    assert ids.new_process_id("runner") != ids.new_process_id("runner")


def test_header_values_that_repeat_are_joined_by_a_space() -> None:
    env = environment.header_env([("X-Tag", "a"), ("x-tag", "b"), ("HOST", "h")])
    assert env == {"HEADER_X_TAG": "a b"}


@given(st.dictionaries(st.text(), st.text()))
def test_size_counts_what_a_process_stores(env: dict[str, str]) -> None:
    stored = b"".join(f"{k}={v}".encode() + b"\0" for k, v in env.items())
    assert environment.size_bytes(env) == len(stored)


@dataclasses.dataclass(frozen=True)
class Example:
    port: int = setting(8080, "Where to listen.", check=at_least(1))
    db_url: str = setting("", "The database.")
    fraction: float = setting(0.5, "A share.")


@dataclasses.dataclass(frozen=True)
class Address:
    db_url: str = setting("", "The database.", check=OneOf([""]))


@dataclasses.dataclass(frozen=True)
class Levelled:
    log_level: str = log_level()


def test_settings_come_from_variables_and_defaults() -> None:
    assert read(Example, {"PORT": "9", "DB_URL": "", "OTHER": "x"}) == Example(port=9)


def test_all_bad_settings_are_named_at_once() -> None:
    with pytest.raises(errors.BadSettings) as raised:
        read(Example, {"PORT": "0", "FRACTION": "half"})
    assert "PORT='0'" in raised.value.message
    assert "FRACTION='half'" in raised.value.message


@pytest.mark.parametrize(
    "url",
    [
        "mysql://func:p%40w@db:3307/func",
        "mysql://func:p%40w@tcp(db:3307)/func",
        "mysql://func:p@w@tcp(db:3307)/func?parseTime=true",
        "mysql://func:p@w@(db:3307)/func",
    ],
)
def test_both_spellings_of_a_database_address(url: str) -> None:
    assert urls.parse_mysql(url) == urls.Database("db", 3307, "func", "p@w", "func")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mysql://u:a/b?c#d@tcp(db)/f", urls.Database("db", 3306, "u", "a/b?c#d", "f")),
        ("mysql://u@tcpserver/f", urls.Database("tcpserver", 3306, "u", "", "f")),
        ("mysql://u:p@tcp([::1]:3307)/f", urls.Database("::1", 3307, "u", "p", "f")),
        ("mysql://tcp(db:3306)/f", urls.Database("db", 3306, "", "", "f")),
    ],
)
def test_odd_database_addresses_are_understood(url: str, expected: urls.Database) -> None:
    assert urls.parse_mysql(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "postgres://a@b/c",
        "mysql://user:secret@host",
        "mysql:///x",
        "mysql://user:secret@host:port/x",
        "mysql://user:secret@host:70000/x",
        "mysql://user:secret@unix(/tmp/socket)/x",
    ],
)
def test_a_bad_database_address_is_refused_without_showing_the_password(url: str) -> None:
    with pytest.raises(ValueError, match="must be mysql://") as raised:
        urls.parse_mysql(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://mq:6379",
        "redis://:p@mq/0",
        "rediss://u:p@[::1]:1/",
        "unix:///run/redis/redis.sock",
        "unix://:p@/run/redis.sock?db=2",
    ],
)
def test_redis_addresses(url: str) -> None:
    urls.check_redis(url)


@pytest.mark.parametrize(
    "url",
    [
        *("", "mq:6379", "memory://", "redis://", "redis://:1", "redis://:secret@mq:x"),
        *("redis://mq/x", "unix://", "unix:///", "unix://host/x", "unix:///x?db=secret"),
    ],
)
def test_a_bad_redis_address_is_refused_without_showing_the_password(url: str) -> None:
    with pytest.raises(ValueError, match="must be redis://") as raised:
        urls.check_redis(url)
    assert "secret" not in str(raised.value)


def test_a_bad_setting_is_told_without_its_password() -> None:
    with pytest.raises(errors.BadSettings) as raised:
        read(Address, {"DB_URL": "mysql://func:s@cret@host:x/func"})
    assert "DB_URL='mysql://func:***@host:x/func'" in raised.value.message
    assert "cret" not in raised.value.message


@pytest.mark.parametrize("level", ["warn", "INFO", "fatal", "panic", "debug"])
def test_levels_of_the_original_are_taken(level: str) -> None:
    assert read(Levelled, {"LOG_LEVEL": level}).log_level == level


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(errors.BadSettings, match="LOG_LEVEL='loud': Must be one of: debug, info"):
        read(Levelled, {"LOG_LEVEL": "loud"})


def test_a_message_survives_the_wire() -> None:
    reply = messages.Reply("id", messages.Failed("exit", "exit code 3", exit_code=3), 1.5, 2.5)
    assert messages.decode(messages.encode(reply), messages.Reply) == reply


def test_an_older_sender_may_lack_newer_fields() -> None:
    full = messages.ExecutionFinished("runner", "call")
    assert messages.decode(messages.encode(full), messages.Event) == full


@given(st.binary())
@example(b"\x9c\xa8" + 7 * b"\x00" + b"\x80")
def test_bytes_that_are_no_message_are_named_as_such(raw: bytes) -> None:
    try:
        messages.decode(raw, messages.CallHead)
    except errors.Undecodable:
        return
    pytest.fail("random bytes made a call")


@pytest.mark.parametrize("name", errors.CODES)
def test_each_error_says_its_fault_and_meaning(name: str) -> None:
    row = errors.CODES[name]
    assert row.status >= 400
    assert row.meaning.endswith(".")
    assert (row.fault == "platform") == (
        row.status in {500, 502, 503, 504} and name not in FUNCTION
    )


FUNCTION = {name for name, row in errors.CODES.items() if row.fault == "function"}


def test_every_error_class_refers_to_the_table() -> None:
    classes = [errors.MillraceError, *errors.MillraceError.__subclasses__()]
    assert {c.code for c in classes} <= set(errors.CODES)


@pytest.mark.parametrize("cpus", [float("nan"), float("inf"), -1.0])
def test_an_amount_of_cpus_that_cannot_be_added_up_is_not_decoded(cpus: float) -> None:
    beat = messages.Heartbeat("r1", "e1", 1, 100, cpus, "amd64")
    head = messages.CallHead("c1", "sync", "a", "/p", "i", 1, cpus, 1, 1, 1, "", 1)
    for message in (beat, head):
        with pytest.raises(errors.Undecodable):
            messages.decode(messages.encode(message), type(message))
