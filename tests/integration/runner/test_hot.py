"""Do functions that live on get their calls and give their answers, whatever else they do?

One program, the puppet, in each format: it does what its input says.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiodocker
import pytest

from services.runner import hot, runs, sandbox
from shared import streaming
from tests.conftest import eventually
from tests.integration.runner.bench import Bench, Box, Caller
from tests.integration.runner.functions import program

KIB, MIB = 1024, 1024 * 1024
FORMATS = ["http", "json", "http-stream"]
#: Those whose functions can answer piece by piece.
STREAMING = ["http", "http-stream"]
#: Those that are called by their standard files.
STANDARD = ["http", "json"]

Step = tuple[str, Any]
FULL = {"http": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nall", "json": b'{"body": "all"}\n'}
FULL["http-stream"] = FULL["http"]


def steps(*done: Step) -> bytes:
    """Return an input that makes the puppet do this."""
    return json.dumps({"steps": done}).encode()


def write(data: bytes) -> Step:
    """Write this in the place of an answer."""
    return "write", base64.b64encode(data).decode()


@asynccontextmanager
async def puppet(
    bench: Bench, how: str, *at_start: Step, memory_mb: int = 64, **env: str
) -> AsyncIterator[Box]:
    image = await program(bench.docker, "puppet")
    config = {"PUPPET_START": json.dumps(at_start), **env}
    opened = bench.opened(image, format=how, memory_mb=memory_mb, config_env=config)
    async with opened as box:
        yield box


async def ending(caller: Caller) -> runs.Ending:
    return (await caller.result()).ending


async def spoiled(box: Box, *done: Step, **changes: Any) -> runs.Ending:
    """Return how a call ends, after which the sandbox must not be used."""
    caller = await box.call(steps(*done), **changes)
    assert not caller.was_refused
    assert not caller.reusable
    return await ending(caller)


def bad(why: runs.Ending) -> str:
    assert isinstance(why, runs.BadAnswer), why
    return why.why


# As it should be.


@pytest.mark.parametrize("how", FORMATS)
async def test_calls_and_answers(bench: Bench, how: str) -> None:
    async with puppet(bench, how) as box:
        for payload in (b"", b"x", b"\0\xff\r\n\r\n{}", b"\n" * 9, "é".encode(), bytes(MIB)):
            assert await box.answer(payload) == payload


@pytest.mark.parametrize("how", FORMATS)
async def test_one_process_takes_all_calls(bench: Bench, how: str) -> None:
    told = ("run", "import os; channel.answer(str(os.getpid()).encode())")
    async with puppet(bench, how) as box:
        assert len({await box.answer(steps(told)) for _ in range(5)}) == 1
        assert len(await bench.containers()) == 1


async def test_status_and_headers_in_http(bench: Bench) -> None:
    said = b"HTTP/1.1 201 Made\r\nX-A: 1\r\nContent-Type: a/b\r\nContent-Length: 2\r\n\r\nok"
    async with puppet(bench, "http") as box:
        caller = await box.call(steps(write(said)))
        result = await caller.result()
        assert result.ending == runs.Answered(201, (("X-A", "1"), ("Content-Type", "a/b")))
        assert result.body == b"ok"


async def test_status_and_headers_in_json(bench: Bench) -> None:
    said = {"status": 404, "headers": {"X-A": ["1", "2"]}, "body": {"a": [1]}}
    async with puppet(bench, "json") as box:
        caller = await box.call(steps(write(json.dumps(said).encode() + b"\n")))
        result = await caller.result()
        headers = (("Content-Type", "application/json"), ("X-A", "1"), ("X-A", "2"))
        assert result.ending == runs.Answered(404, headers)
        assert json.loads(result.body) == {"a": [1]}


async def test_status_and_headers_in_http_stream(bench: Bench) -> None:
    said = (
        b"HTTP/1.1 200 OK\r\nFn-Http-Status: 302\r\nFn-Http-H-Location: /x\r\n"
        b"Content-Type: a/b\r\nContent-Length: 2\r\n\r\nok"
    )
    async with puppet(bench, "http-stream") as box:
        caller = await box.call(steps(write(said)))
        result = await caller.result()
        assert result.ending == runs.Answered(302, (("Content-Type", "a/b"), ("Location", "/x")))
        assert result.body == b"ok"


@pytest.mark.parametrize("how", FORMATS)
async def test_what_the_process_is_started_with(bench: Bench, how: str) -> None:
    told = ("run", "import json, os; channel.answer(json.dumps(dict(os.environ)).encode())")
    async with puppet(bench, how, A="1", FN_FORMAT="mine") as box:
        env = json.loads(await box.answer(steps(told), env={"CALL": "1"}))
        assert (env["FN_FORMAT"], env["A"]) == (how, "1")
        assert "CALL" not in env
        if how == "http-stream":
            assert env["FN_LISTENER"] == "unix:/tmp/iofs/lsnr.sock"
            assert (env["FN_MEMORY"], env["FN_TYPE"], env["FN_APP_NAME"]) == ("64", "sync", "app")


@pytest.mark.parametrize("how", FORMATS)
async def test_a_log_belongs_to_its_call(bench: Bench, how: str) -> None:
    """Up to the last byte before the answer. What comes later is nobody's, or the next one's."""
    async with puppet(bench, how) as box:
        for n in range(20):
            text = f"{n}\n" * 3000
            caller = await box.call(steps(("log", text), ("answer", "x"), ("log", "late\n")))
            result = await caller.result()
            assert result.log.decode().replace("late\n", "") == text


@pytest.mark.parametrize("how", FORMATS)
async def test_what_is_logged_at_the_start_belongs_to_the_first_call(
    bench: Bench, how: str
) -> None:
    async with puppet(bench, how, ("log", "at the start\n")) as box:
        logs = [(await (await box.call(b"x")).result()).log for _ in range(3)]
        assert logs == [b"at the start\n", b"", b""]


async def test_the_standard_output_of_http_stream_is_log(bench: Bench) -> None:
    async with puppet(bench, "http-stream") as box:
        caller = await box.call(steps(("stdout", "out\n"), ("log", "err\n"), ("answer", "x")))
        assert sorted((await caller.result()).log.split()) == [b"err", b"out"]


@pytest.mark.parametrize("how", FORMATS)
async def test_a_function_that_is_slow_to_start(bench: Bench, how: str) -> None:
    async with puppet(bench, how, ("sleep", 1.0)) as box:
        assert await box.answer(b"hello") == b"hello"


# Answers in parts.


@pytest.mark.parametrize("how", STREAMING)
async def test_an_answer_comes_as_it_is_produced(bench: Bench, how: str) -> None:
    async with puppet(bench, how) as box:
        caller = box.begin(
            steps(
                ("begin", "text/event-stream"),
                ("chunk", "data: 1\n\n"),
                ("wait", "/tmp/go"),
                ("chunk", "data: 2\n\n"),
                write(b"0\r\n\r\n"),
            ),
            streams=True,
        )
        await caller.received(9)
        assert caller.body == b"data: 1\n\n"
        assert (caller.status, caller.over) == (200, False)
        assert dict(caller.headers)["Content-Type"] == "text/event-stream"
        await run_inside(bench, box, "touch /tmp/go")
        result = await caller.result()
        assert result.ending == runs.Answered(200, caller.headers, streamed=True)
        assert caller.body == b"data: 1\n\ndata: 2\n\n"
        assert result.body == b""
        assert caller.reusable
        assert await box.answer(b"next") == b"next"


async def run_inside(bench: Bench, box: Box, script: str) -> None:
    """Do something in a sandbox from the outside."""
    container = bench.docker.containers.container(box.sandbox.container_id)
    done = await container.exec(["sh", "-c", script])
    await done.start(detach=True)


@pytest.mark.parametrize("how", STREAMING)
async def test_for_who_cannot_take_parts_they_are_put_together(bench: Bench, how: str) -> None:
    async with puppet(bench, how) as box:
        parts = (("begin", "a/b"), ("chunk", "one "), ("chunk", "two"), write(b"0\r\n\r\n"))
        caller = await box.call(steps(*parts), streams=False)
        result = await caller.result()
        assert (caller.status, result.body) == (None, b"one two")
        assert isinstance(result.ending, runs.Answered)
        assert not result.ending.streamed


@pytest.mark.parametrize("how", STREAMING)
async def test_no_more_is_under_way_than_was_agreed(bench: Bench, how: str) -> None:
    """And what is taken makes room for as much again."""
    count, size = 4 * 1024, KIB
    async with puppet(bench, how) as box:
        done = (("begin", "a/b"), ("chunks", (count, size)), write(b"0\r\n\r\n"))
        caller = box.begin(steps(*done), streams=True)
        taken = 0
        while not caller.over:
            await settled(caller)
            assert len(caller.body) - taken < streaming.UNTAKEN_MAX_BYTES
            assert caller.over or len(caller.body) - taken >= streaming.WINDOW_BYTES
            taken += 256 * KIB
            box.sandbox.more(taken)
        assert caller.body == b"".join(b"%08d" % n * (size // 8) for n in range(count))
        assert await ending(caller) == runs.Answered(200, caller.headers, streamed=True)
        assert await box.answer(b"next") == b"next"


async def logged(box: Box) -> None:
    """Wait until the function has written something to its log."""

    async def something() -> bytes:
        driver: Any = box.sandbox._driver
        return bytes(driver._run.output.log.text())

    await eventually(something)


async def settled(caller: Caller) -> None:
    """Wait until nothing more comes."""
    before = -1
    while len(caller.body) != before and not caller.over:
        before = len(caller.body)
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("how", STREAMING)
async def test_a_streamed_answer_has_its_own_limit(bench: Bench, how: str) -> None:
    async with puppet(bench, how) as box:
        done = (("begin", "a/b"), ("chunks", (9 * 1024, KIB)), write(b"0\r\n\r\n"))
        caller = box.begin(steps(*done), streams=True)
        while not caller.over:
            box.sandbox.more(len(caller.body))
            await asyncio.sleep(0.005)
        assert await ending(caller) == runs.Overflowed(8 * MIB)
        assert not caller.reusable


@pytest.mark.parametrize("how", STREAMING)
async def test_a_streamed_answer_that_breaks_off(bench: Bench, how: str) -> None:
    async with puppet(bench, how) as box:
        done = (("begin", "a/b"), ("chunk", "half"), ("exit", 3))
        caller = await box.call(steps(*done), streams=True)
        assert (caller.status, caller.body) == (200, b"half")
        assert await ending(caller) == runs.Exited(3)
        assert not caller.reusable


@pytest.mark.parametrize("how", STREAMING)
async def test_a_caller_who_leaves_stops_a_stream_that_nobody_takes(bench: Bench, how: str) -> None:
    async with puppet(bench, how) as box:
        caller = box.begin(steps(("begin", "a/b"), ("chunks", (9999, KIB))), streams=True)
        await caller.received(streaming.WINDOW_BYTES)
        box.sandbox.stop()
        assert await ending(caller) == runs.Stopped()


async def test_an_answer_may_end_with_the_output(bench: Bench) -> None:
    """In both formats of HTTP; of a process that lives by its output, it is the last one."""
    said = (write(b"HTTP/1.0 200 OK\r\n\r\nuntil the end"),)
    async with puppet(bench, "http-stream") as box:
        assert await box.answer(steps(*said), streams=True) == b"until the end"
        assert await box.answer(b"next") == b"next"
    async with puppet(bench, "http") as box:
        caller = await box.call(steps(*said, ("exit", 0)), streams=True)
        assert caller.body == b"until the end"
        assert isinstance(await ending(caller), runs.Answered)
        assert not caller.reusable


# As it should not be: each is told, and no next call is harmed.


@pytest.mark.parametrize("how", FORMATS)
@pytest.mark.parametrize("code", [3, 0])
async def test_a_function_that_exits_while_it_is_called(bench: Bench, how: str, code: int) -> None:
    async with puppet(bench, how) as box:
        assert await box.answer(b"before") == b"before"
        caller = await box.call(steps(("log", "why\n"), ("exit", code)))
        expected = runs.Exited(3) if code else runs.BadAnswer(EXITED)
        result = await caller.result()
        assert (result.ending, result.log, caller.reusable) == (expected, b"why\n", False)
        assert (await box.call(b"after")).was_refused


EXITED = "it ended (exit code 0) without an answer"


@pytest.mark.parametrize("how", FORMATS)
async def test_a_function_that_is_ended_by_a_signal(bench: Bench, how: str) -> None:
    async with puppet(bench, how) as box:
        assert await spoiled(box, ("kill", 11)) == runs.Exited(139)


@pytest.mark.parametrize("how", FORMATS)
async def test_a_function_that_wants_too_much_memory(bench: Bench, how: str) -> None:
    async with puppet(bench, how, memory_mb=48) as box:
        assert await box.answer(b"before") == b"before"
        assert await spoiled(box, ("memory", 0)) == runs.Exited(137, oom_killed=True)


@pytest.mark.parametrize("how", FORMATS)
async def test_a_function_that_exits_in_the_middle_of_its_answer(bench: Bench, how: str) -> None:
    async with puppet(bench, how) as box:
        assert await spoiled(box, write(FULL[how][:-2]), ("exit", 3)) == runs.Exited(3)


@pytest.mark.parametrize("how", FORMATS)
async def test_a_function_that_exits_once_it_has_answered(bench: Bench, how: str) -> None:
    """Its answer counts; whoever comes next is refused, and may be run elsewhere."""
    async with puppet(bench, how) as box:
        caller = await box.call(steps(("answer", "fine"), ("exit", 3)))
        result = await caller.result()
        assert (result.body, result.ending) == (b"fine", runs.Answered(200, ()))
        again = await box.call(b"next")
        # Nobody can tell whether it has read what went into its socket.
        assert again.was_refused or (how == "http-stream" and await ending(again) == runs.Exited(3))


@pytest.mark.parametrize("how", FORMATS)
async def test_a_function_that_exits_when_it_is_idle(bench: Bench, how: str) -> None:
    async with puppet(bench, how) as box:
        assert await box.answer(steps(("answer", "fine"), ("sleep", 0.3), ("exit", 3))) == b"fine"
        await box.becomes_useless()
        assert (await box.call(b"next")).was_refused


@pytest.mark.parametrize("how", FORMATS)
async def test_a_function_that_exits_at_its_start(bench: Bench, how: str) -> None:
    done = (("log", "why\n"), ("exit", 3))
    if how == "http-stream":
        with pytest.raises(sandbox.Unopened) as caught:
            async with puppet(bench, how, *done):
                pass
        assert (caught.value.ending, caught.value.log) == (runs.Exited(3), b"why\n")
        return
    async with puppet(bench, how, *done) as box:
        caller = await box.call(b"first")
        result = await caller.result()
        assert (result.ending, result.log, caller.reusable) == (runs.Exited(3), b"why\n", False)
    async with puppet(bench, how, *done) as box:
        await box.becomes_useless()
        caller = await box.call(b"first")
        result = await caller.result()
        assert (result.ending, result.log, caller.reusable) == (runs.Exited(3), b"why\n", False)


async def test_a_function_that_never_listens(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot, "LISTEN_S", 1.0)
    with pytest.raises(sandbox.Unopened) as caught:
        async with puppet(bench, "http-stream", ("log", "why\n"), ("sleep", 600)):
            pass
    assert bad(caught.value.ending) == "it did not listen at FN_LISTENER within 1 s"
    assert caught.value.log == b"why\n"


async def test_a_sandbox_that_somebody_kills_at_its_start(bench: Bench) -> None:
    image = await program(bench.docker, "puppet")
    config = {"PUPPET_START": json.dumps([("sleep", 600)])}
    opening = asyncio.create_task(bench.open(image, format="http-stream", config_env=config))

    async def there() -> bool:
        return bool(await bench.containers())

    await eventually(there)
    (found,) = await bench.containers()

    async def killed() -> bool:
        try:
            await bench.docker.containers.container(found.container_id).kill()
        except aiodocker.DockerError:  # it does not run yet
            return False
        return True

    await eventually(killed)
    with pytest.raises(sandbox.Unopened) as caught:
        await opening
    assert isinstance(caught.value.ending, runs.EngineFailed)


@pytest.mark.parametrize("how", FORMATS)
async def test_a_function_that_hangs(bench: Bench, how: str) -> None:
    async with puppet(bench, how) as box:
        caller = box.begin(steps(("log", "waiting\n"), ("sleep", 600)))
        await logged(box)
        box.sandbox.stop()
        result = await caller.result()
        assert (result.ending, result.log) == (runs.Stopped(), b"waiting\n")
        assert not caller.reusable
        assert (await box.call(b"next")).was_refused


@pytest.mark.parametrize("how", FORMATS)
async def test_a_function_that_hangs_in_the_middle_of_its_answer(bench: Bench, how: str) -> None:
    async with puppet(bench, how) as box:
        caller = box.begin(steps(write(FULL[how][:-2]), ("log", "waiting\n"), ("sleep", 600)))
        await logged(box)
        box.sandbox.stop()
        assert await ending(caller) == runs.Stopped()


GARBAGE = {
    "http": [
        b"hello\n",
        b"\0\0\0\0",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTask-Id: other\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    ],
    "json": [
        b"hello\n",
        b"\0\0\0\0\n",
        b"[]\n",
        b'{"status": 99}\n',
        b'{"call_id": "other"}\n',
        b'{"body": "\xff"}\n',
        b'{"body": "x", "is_base64": 1}\n',
        b"[" * 100_000 + b"\n",
    ],
}
GARBAGE["http-stream"] = [
    *(said for said in GARBAGE["http"] if b"Task-Id" not in said),
    b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno",
    b"HTTP/1.1 200 OK\r\nFn-Http-Status: 99\r\nContent-Length: 0\r\n\r\n",
]


@pytest.mark.parametrize(("how", "said"), [(how, said) for how in FORMATS for said in GARBAGE[how]])
async def test_a_function_that_does_not_answer_in_its_format(
    bench: Bench, how: str, said: bytes
) -> None:
    async with puppet(bench, how) as box:
        assert bad(await spoiled(box, ("log", "before\n"), write(said), ("sleep", 600)))


@pytest.mark.parametrize("how", FORMATS)
async def test_a_function_that_answers_twice_at_once(bench: Bench, how: str) -> None:
    async with puppet(bench, how) as box:
        assert "answered twice" in bad(await spoiled(box, write(2 * FULL[how])))


@pytest.mark.parametrize("how", STANDARD)
async def test_a_function_that_answers_again_when_it_is_idle(bench: Bench, how: str) -> None:
    async with puppet(bench, how) as box:
        done = steps(("answer", "one"), ("sleep", 0.3), ("answer", "two"))
        assert await box.answer(done) == b"one"
        await box.becomes_useless()
        assert (await box.call(b"next")).was_refused


@pytest.mark.parametrize("how", STANDARD)
async def test_an_answer_before_anything_was_read_is_not_the_next_calls(
    bench: Bench, how: str
) -> None:
    """That one is refused, because nothing of it was seen, and may be run elsewhere."""
    late = (("answer", "one"), ("wait", "/tmp/go"), ("answer", "two"), ("sleep", 600))
    async with puppet(bench, how) as box:
        assert await box.answer(steps(*late)) == b"one"
        caller = box.begin(b"mine")
        await run_inside(bench, box, "touch /tmp/go")
        await caller.result()
        assert caller.was_refused


@pytest.mark.parametrize("how", STANDARD)
@pytest.mark.parametrize("delay_s", [0.0, 0.0005, 0.001, 0.002, 0.005, 0.01])
async def test_an_answer_that_names_its_call_is_never_anothers(
    bench: Bench, how: str, delay_s: float
) -> None:
    """Whenever it comes: when the next call is on its way, or has just been read."""
    async with puppet(bench, how, PUPPET_NAMES="1") as box:
        done = steps(("answer", "one"), ("sleep", delay_s), ("answer", "two"))
        first = await box.call(done)
        if first.reusable:
            second = await box.call(b"mine")
            result = await second.result()
            told = second.was_refused or isinstance(result.ending, runs.BadAnswer)
            assert told or result.body == b"mine", result


@pytest.mark.parametrize("how", STANDARD)
@pytest.mark.parametrize("delay_s", [0.0002, 0.001, 0.003])
async def test_a_second_answer_is_not_the_next_calls_however_good_the_process_was(
    bench: Bench, how: str, delay_s: float
) -> None:
    async with puppet(bench, how) as box:
        for number in range(20):
            assert await box.answer(steps(("answer", f"{number}"))) == f"{number}".encode()
        first = await box.call(steps(("answer", "one"), ("sleep", delay_s), ("answer", "two")))
        if first.reusable:
            second = await box.call(steps(("sleep", 0.005), ("answer", "mine")))
            assert second.was_refused or (await second.result()).body == b"mine"


@pytest.mark.parametrize("how", STANDARD)
async def test_an_answer_before_the_first_call_was_read_is_none(bench: Bench, how: str) -> None:
    async with puppet(bench, how, ("wait", "/tmp/go"), write(FULL[how]), ("sleep", 600)) as box:
        caller = box.begin(b"mine")
        await run_inside(bench, box, "touch /tmp/go")
        assert "without being asked" in bad(await ending(caller))
        assert not caller.reusable


async def test_a_function_that_answers_again_on_a_connection_that_is_over(bench: Bench) -> None:
    async with puppet(bench, "http-stream") as box:
        done = steps(("answer", "one"), ("sleep", 0.1), ("answer", "two"))
        assert await box.answer(done) == b"one"
        for n in range(3):
            assert await box.answer(b"%d" % n) == b"%d" % n


@pytest.mark.parametrize("how", STANDARD)
async def test_a_function_that_talks_before_it_is_asked(bench: Bench, how: str) -> None:
    async with puppet(bench, how, ("log", "log\n"), ("stdout", "hello, I am here\n")) as box:
        await box.becomes_useless()
        caller = await box.call(b"first")
        result = await caller.result()
        assert "without being asked" in bad(result.ending)
        assert (result.log, caller.reusable) == (b"log\n", False)


@pytest.mark.parametrize("how", STANDARD)
async def test_line_ends_are_no_talk(bench: Bench, how: str) -> None:
    async with puppet(bench, how, ("stdout", "\r\n\n")) as box:
        for n in range(3):
            done = steps(("stdout", "\n"), ("answer", f"{n}"), ("stdout", "\r\n"))
            assert await box.answer(done) == b"%d" % n
        assert not box.useless.is_set()


@pytest.mark.parametrize("how", STANDARD)
async def test_a_function_that_closes_its_output_without_an_answer(bench: Bench, how: str) -> None:
    async with puppet(bench, how) as box:
        told = bad(await spoiled(box, ("close", 1), ("sleep", 600)))
        assert "ended before it had answered" in told


@pytest.mark.parametrize("how", STANDARD)
async def test_a_function_that_closes_its_output_when_it_is_idle(bench: Bench, how: str) -> None:
    async with puppet(bench, how) as box:
        done = steps(("answer", "fine"), ("sleep", 0.1), ("close", 1), ("sleep", 600))
        assert await box.answer(done) == b"fine"
        await box.becomes_useless()
        assert (await box.call(b"next")).was_refused


@pytest.mark.parametrize("how", STANDARD)
async def test_a_function_that_closes_its_input_gets_no_call_that_it_cannot_read(
    bench: Bench, how: str
) -> None:
    async with puppet(bench, how) as box:
        done = steps(("close", 0), ("answer", "fine"), ("sleep", 600))
        caller = await box.call(done)
        assert (await caller.result()).body == b"fine"
        again = await box.call(b"next")
        assert again.was_refused


async def test_a_function_that_closes_its_socket_gets_no_call_that_it_cannot_read(
    bench: Bench,
) -> None:
    close = ("run", "import gc, socket; [o.close() for o in gc.get_objects() if LISTENS(o)]")
    close = ("run", close[1].replace("LISTENS(o)", LISTENS))
    async with puppet(bench, "http-stream") as box:
        assert await box.answer(steps(close, ("answer", "fine"))) == b"fine"
        assert (await box.call(b"next")).was_refused


LISTENS = "isinstance(o, socket.socket) and o.getsockopt(1, 30)"


@pytest.mark.parametrize("how", STANDARD)
async def test_a_function_that_does_not_read_its_input(bench: Bench, how: str) -> None:
    """Its answer counts, but the rest would be taken for the next call."""
    async with puppet(bench, how, PUPPET_UNREAD="10") as box:
        caller = await box.call(b"x" * 100)
        assert (await caller.result()).body == b"unread"
        assert not caller.reusable
    async with puppet(bench, how, PUPPET_UNREAD="10") as box:
        caller = await box.call(bytes(MIB))
        assert (await caller.result()).body == b"unread"
        assert not caller.reusable


@pytest.mark.parametrize("how", FORMATS)
async def test_the_longest_answer_there_may_be(bench: Bench, how: str) -> None:
    most = 2 * MIB if how != "json" else MIB
    async with puppet(bench, how) as box:
        assert await box.answer(bytes(most)) == bytes(most)
        caller = await box.call(bytes(2 * MIB + 1))
        assert await ending(caller) == runs.Overflowed(2 * MIB)
        assert not caller.reusable


@pytest.mark.parametrize("how", STREAMING)
async def test_an_answer_that_is_too_long_to_be_put_together(bench: Bench, how: str) -> None:
    async with puppet(bench, how) as box:
        done = (("begin", "a/b"), ("chunks", (3 * 1024, KIB)), write(b"0\r\n\r\n"))
        assert await spoiled(box, *done, streams=False) == runs.Overflowed(2 * MIB)


@pytest.mark.parametrize("how", FORMATS)
async def test_children_that_hold_everything_open(bench: Bench, how: str) -> None:
    async with puppet(bench, how) as box:
        assert await box.answer(steps(("fork", 600), ("answer", "fine"))) == b"fine"
        assert await box.answer(b"next") == b"next"
        assert await spoiled(box, ("exit", 3)) == runs.Exited(3)


async def test_a_kit_that_says_that_its_function_failed(bench: Bench) -> None:
    async with puppet(bench, "http-stream") as box:
        for status, timed_out in ((502, False), (504, True)):
            said = b"HTTP/1.1 %d X\r\nContent-Length: 3\r\n\r\nwhy" % status
            caller = await box.call(steps(write(said)))
            result = await caller.result()
            assert (result.ending, result.log) == (runs.SaysFailed(timed_out), b"why")
            assert caller.reusable
        assert await box.answer(b"next") == b"next"


@pytest.mark.parametrize("how", FORMATS)
async def test_more_variables_than_a_process_can_have(bench: Bench, how: str) -> None:
    for size in (200 * KIB, 2 * MIB):
        found: runs.Ending
        try:
            async with puppet(bench, how, HUGE="x" * size) as box:
                found = await ending(await box.call(b"first"))
        except sandbox.Unopened as error:
            found = error.ending
        assert isinstance(found, runs.TooLarge)


@pytest.mark.parametrize("how", FORMATS)
async def test_very_many_variables_do_not_mix_with_what_follows(bench: Bench, how: str) -> None:
    """They are more than the connection to the sandbox takes at one time."""
    many = {f"N{n}": "x" * 100 * KIB for n in range(8)}
    told = ("run", "import os; channel.answer(b'%d' % sum(k[0] == 'N' for k in os.environ))")
    async with puppet(bench, how, **many) as box:
        assert await box.answer(steps(told)) == b"8"
