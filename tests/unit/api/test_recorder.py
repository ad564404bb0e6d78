"""How are records taken out of Redis, once MySQL has them?"""

from typing import Any

import pymysql.err

from services.api.recorder import Recorder
from shared import keys, messages

OUT_OF_MEMORY_TOO = "#!lua flags=allow-oom"


class FullRedis:
    """A Redis out of memory: it refuses transactions, and whatever adds something.

    Of what it performs it keeps the words.
    """

    def __init__(self) -> None:
        self.performed: list[tuple[Any, ...]] = []

    async def execute_command(self, *command: Any) -> int:
        assert command[0] == "EVAL"
        assert command[1].startswith(OUT_OF_MEMORY_TOO)
        self.performed.append(command[2:])
        return 1

    async def get(self, _: str) -> bytes:
        return b"parcel"


class Mysql:
    """Records and letters; it refuses a call named `refused`."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.written: list[str] = []

    async def keep(self, record: messages.Record, *_: object) -> bool:
        if record.call_id == "refused":
            raise pymysql.err.DataError(1406, "too long")
        self.kept.append(record.call_id)
        return True

    async def write(self, records: list[messages.Record]) -> bool:
        self.written += [record.call_id for record in records]
        return False


def an_entry(number: int, call_id: str, **more: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    record = messages.Record(call_id, "error", "async", "a", "/p", "img", 1, code="exit")
    fields = {b"m": messages.encode(record), **{name.encode(): more[name] for name in more}}
    return b"%d-0" % number, fields


async def recorded(*entries: tuple[bytes, dict[bytes, bytes]]) -> tuple[FullRedis, Mysql]:
    redis: Any = FullRedis()
    mysql: Any = Mysql()
    recorder = Recorder(redis, mysql, mysql, "api-1")
    await recorder._record(list(entries))
    return redis, mysql


async def test_dead_letters_leave_a_full_redis() -> None:
    redis, mysql = await recorded(an_entry(1, "plain"), an_entry(2, "dead", h=b"head"))
    assert (mysql.kept, sorted(mysql.written)) == (["dead"], ["dead", "plain"])
    names = (keys.FINISHED, keys.parcel("dead"))
    assert redis.performed == [(2, *names, keys.RECORDERS, b"1-0", b"2-0")]


async def test_what_nobody_can_decode_leaves_a_full_redis() -> None:
    redis, mysql = await recorded((b"1-0", {b"m": b"\xc1"}), an_entry(2, "plain"))
    assert mysql.written == ["plain"]
    (aside, taken_out) = redis.performed
    assert aside[:3] == (2, keys.ASIDE, keys.FINISHED)
    assert aside[4:6] == (keys.RECORDERS, b"1-0")
    assert taken_out == (1, keys.FINISHED, keys.RECORDERS, b"2-0")


async def test_a_refused_dead_letter_holds_up_nobody_in_a_full_redis() -> None:
    redis, mysql = await recorded(an_entry(1, "refused", h=b"head"), an_entry(2, "plain"))
    assert sorted(mysql.written) == ["plain", "refused"]
    assert redis.performed[0][:3] == (2, keys.ASIDE, keys.FINISHED)
    assert redis.performed[-1][-2:] == (b"1-0", b"2-0")
