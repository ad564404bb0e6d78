"""Do functions of format `default` run as promised, each in its confinement, on the real engine?"""

import asyncio
import os
import re
import secrets

import pytest

from services.runner import engine, outcome, runs, sandbox
from services.runner.pulls import Trouble
from shared import clock, messages
from shared.errors import CODES
from tests.conftest import eventually
from tests.integration.runner.bench import Bench
from tests.integration.runner.functions import BUSYBOX, build, shell

MIB = 1024 * 1024
#: No capability at all.
NONE = "0" * 16


def judged(result: runs.Result) -> messages.Outcome:
    return outcome.judge(result, "img", None)


def code_of(result: runs.Result) -> str:
    reached = judged(result)
    return reached.code if isinstance(reached, messages.Failed) else "ok"


async def test_a_mib_of_random_bytes_comes_back_unchanged(bench: Bench) -> None:
    payload = os.urandom(MIB)
    result = await bench.run("cat", payload)
    assert result.body == payload
    assert result.digest.startswith("sha256:")
    assert result.started_ms is not None
    assert result.peak_memory_bytes is not None


async def test_fifty_different_calls_at_once_each_get_their_own_answer(bench: Bench) -> None:
    image = await shell(bench.docker, "cat; echo $N")
    results = await asyncio.gather(
        *(bench.run_image(image, b"%d:" % n, env={"N": str(n)}) for n in range(50))
    )
    assert [r.body for r in results] == [b"%d:%d\n" % (n, n) for n in range(50)]
    assert await bench.containers() == []


async def test_calls_follow_each_other_in_one_sandbox(bench: Bench) -> None:
    """Each in a process of its own, with variables and files of its own."""
    async with bench.opened(await shell(bench.docker, "cat; echo $$ $N; echo $N >&2")) as box:
        found = [await box.call(b"%d " % n, env={"N": str(n)}) for n in range(20)]
        results = [await caller.result() for caller in found]
        words = [result.body.split() for result in results]
        assert [(int(a), int(b)) for a, _, b in words] == [(n, n) for n in range(20)]
        assert len({pid for _, pid, _ in words}) == 20
        assert [result.log for result in results] == [b"%d\n" % n for n in range(20)]
        assert len(await bench.containers()) == 1


async def test_what_a_call_can_find_of_an_earlier_one_is_files(bench: Bench) -> None:
    """No process, no variable, no memory that is shared: only what was written to a disk."""
    script = """
    ls /tmp /dev/shm; ps -o comm | grep -c sleep; echo ${LEFT-none}
    echo file > /tmp/left; sleep 600 &
    """
    async with bench.opened(await shell(bench.docker, script)) as box:
        assert await box.answer(env={"LEFT": "1"}) == b"/dev/shm:\n\n/tmp:\n0\n1\n"
        assert await box.answer() == b"/dev/shm:\n\n/tmp:\nleft\n0\nnone\n"


async def test_exit_code_and_log(bench: Bench) -> None:
    result = await bench.run("echo out; echo why >&2; exit 3")
    assert judged(result) == messages.Failed("exit", "exit code 3", 3)
    assert result.log == b"why\n"


async def test_a_signal(bench: Bench) -> None:
    assert judged(await bench.run("kill -TERM $$; sleep 9")) == messages.Failed(
        "signal", "exit code 143", 143
    )


async def test_killed_but_not_for_memory(bench: Bench) -> None:
    reached = judged(await bench.run("kill -KILL $$; sleep 9"))
    assert isinstance(reached, messages.Failed)
    assert reached.code == "signal"
    assert "not an out of memory error" in reached.message


async def test_a_call_that_fails_spoils_nothing_for_the_next(bench: Bench) -> None:
    image = await shell(bench.docker, "read line; eval $line; echo fine")
    async with bench.opened(image) as box:
        for harm in ("exit 3", "kill -KILL $$; sleep 9", "kill -SEGV $$; sleep 9", "exec <&- >&-"):
            caller = await box.call(harm.encode() + b"\n")
            assert caller.reusable
            assert await box.answer(b"true\n") == b"fine\n"


@pytest.mark.parametrize("script", ["tail /dev/zero", "exec tail /dev/zero"])
async def test_out_of_memory(bench: Bench, script: str) -> None:
    async with bench.opened(await shell(bench.docker, script), memory_mb=32) as box:
        caller = await box.call()
        assert judged(await caller.result()) == messages.Failed(
            "out_of_memory", "out of memory error", 137
        )
        assert not caller.reusable


async def test_memory_that_a_killed_child_wanted_is_told_of_its_call_alone(bench: Bench) -> None:
    script = "read line; eval $line; exit 137"
    async with bench.opened(await shell(bench.docker, script), memory_mb=32) as box:
        before = await box.call(b"true\n")
        assert code_of(await before.result()) == "signal"
        caller = await box.call(b"tail /dev/zero\n")
        assert code_of(await caller.result()) == "out_of_memory"
        after = await box.call(b"true\n")
        assert code_of(await after.result()) == "signal"


async def test_an_endless_answer_is_cut_off(bench: Bench) -> None:
    async with bench.opened(await shell(bench.docker, "yes")) as box:
        caller = await box.call()
        result = await caller.result()
        assert (result.ending, result.body) == (runs.Overflowed(2 * MIB), b"")
        assert not caller.reusable


async def test_the_longest_answer_there_may_be(bench: Bench) -> None:
    async with bench.opened(await shell(bench.docker, "head -c $N /dev/zero")) as box:
        assert await box.answer(env={"N": str(2 * MIB)}) == bytes(2 * MIB)
        caller = await box.call(env={"N": str(2 * MIB + 1)})
        assert code_of(await caller.result()) == "response_too_large"


async def test_an_endless_log_is_cut_visibly(bench: Bench) -> None:
    result = await bench.run("yes | head -c 1000000 >&2; echo done")
    assert result.body == b"done\n"
    assert len(result.log) < 70_000
    assert re.search(rb"\[\.\.\. \d+ bytes cut \.\.\.\]", result.log)


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ("echo done", b"done\n"),
        ("exec <&-; sleep 0.2; echo done", b"done\n"),
        ("head -c 3", b"\0\0\0"),
    ],
)
async def test_a_function_need_not_read_its_input(bench: Bench, script: str, answer: bytes) -> None:
    async with bench.opened(await shell(bench.docker, script)) as box:
        assert await box.answer(bytes(4 * MIB)) == answer
        assert await box.answer(bytes(3)) == answer


async def test_a_function_may_close_its_output_early(bench: Bench) -> None:
    result = await bench.run("echo out; exec >&-; sleep 0.3; cat >/dev/null; exit 4", b"x")
    assert judged(result) == messages.Failed("exit", "exit code 4", 4)


async def test_what_a_function_left_running_is_gone_with_it(bench: Bench) -> None:
    """Although it holds input and output open, and has a session of its own."""
    script = "(setsid sh -c 'while :; do echo left; sleep 0.01; done' &); cat; sleep 0.1"
    async with bench.opened(await shell(bench.docker, script)) as box:
        for n in range(5):
            answer = await box.answer(b"%d:" % n)
            assert set(answer.replace(b"left\n", b"").split()) <= {b"%d:" % n}
        assert await bench.docker.containers.list()
        assert await processes(bench, box.sandbox.container_id) == 1


async def processes(bench: Bench, container_id: str) -> int:
    """Return how many processes there are in a container."""
    top = await bench.docker._query_json(f"containers/{container_id}/top")
    return len(top["Processes"])


async def test_the_environment_is_exact(bench: Bench) -> None:
    now_ms = clock.epoch_ms()
    result = await bench.run(
        "env | sort", env={"METHOD": "GET", "B": "2 =\"'$x"}, config={"A": "1", "METHOD": "no"}
    )
    seen = dict(line.split("=", 1) for line in result.body.decode().splitlines())
    deadline_ms = int(seen.pop("DEADLINE"))
    assert now_ms + 30_000 <= deadline_ms <= clock.epoch_ms() + 30_000
    for of_the_shell in ("PWD", "SHLVL", "PATH", "HOME", "HOSTNAME", "_"):
        seen.pop(of_the_shell, None)
    assert seen == {"METHOD": "GET", "B": "2 =\"'$x", "A": "1"}


@pytest.mark.parametrize("size", [200 * 1024, 2 * MIB])
async def test_more_variables_than_a_process_can_have(bench: Bench, size: int) -> None:
    result = await bench.run("echo fine", env={"HUGE": "x" * size})
    assert (code_of(result), result.started_ms) == ("too_large", None)


async def test_limits_are_really_set(bench: Bench) -> None:
    script = """
    cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null
    cat /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes 2>/dev/null || echo none
    cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null
    grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status
    ulimit -n; ulimit -c
    """
    lines = (await bench.run(script, memory_mb=48)).body.decode().split()
    assert lines[0] == str(48 * MIB)
    assert lines[1] in {str(48 * MIB), "none"}
    assert lines[2] == "64"
    assert lines[3:] == ["CapEff:", NONE, "CapBnd:", NONE, "NoNewPrivs:", "1", "1024", "0"]


async def test_no_file_grows_beyond_its_limit(bench: Bench) -> None:
    result = await bench.run("head -c 33554432 /dev/zero > /tmp/f; wc -c < /tmp/f")
    assert int(result.body) == 16 * MIB


async def test_a_fork_bomb_ends_while_others_go_on(bench: Bench) -> None:
    bomb = await bench.open(await shell(bench.docker, "b() { b | b & b; }; b"))
    caller = bomb.begin()
    assert (await bench.run("echo fine")).body == b"fine\n"

    async def spread() -> bool:
        return caller.over or await processes(bench, bomb.sandbox.container_id) > 32

    await eventually(spread)
    bomb.sandbox.stop()
    assert code_of(await caller.result()) != "ok"
    await bench.remove(bomb)
    assert await bench.containers() == []


async def test_a_stopped_run_is_over_at_once(bench: Bench) -> None:
    """As for a timeout or a caller who leaves: what it wrote to its log is kept."""
    box = await bench.open(
        await shell(bench.docker, "trap '' TERM; echo log >&2; sleep 600 & wait")
    )
    caller = box.begin()
    container = bench.docker.containers.container(box.sandbox.container_id)

    async def started() -> bool:
        return await processes(bench, container.id) > 2

    await eventually(started)
    box.sandbox.stop()
    assert caller.over
    result = await caller.result()
    assert (result.ending, result.log, caller.reusable) == (runs.Stopped(), b"log\n", False)

    async def over() -> bool:
        shown = await container.show()
        return not shown["State"]["Running"]

    await eventually(over)


async def test_a_stopped_sandbox_runs_nothing_more(bench: Bench) -> None:
    box = await bench.open(await shell(bench.docker, "echo no"))
    box.sandbox.stop()
    assert (await box.call()).was_refused


async def test_a_sandbox_whose_container_somebody_kills_fails_its_call(bench: Bench) -> None:
    box = await bench.open(await shell(bench.docker, "echo log >&2; sleep 600"))
    caller = box.begin()

    async def started() -> bool:
        return await processes(bench, box.sandbox.container_id) > 1

    await eventually(started)
    await bench.docker.containers.container(box.sandbox.container_id).kill()
    result = await caller.result()
    assert result.ending == runs.EngineFailed("the sandbox ended under the call")
    assert not caller.reusable
    assert not box.useless.is_set()
    assert (await box.call()).was_refused


async def test_an_idle_sandbox_whose_container_somebody_kills_says_so(bench: Bench) -> None:
    box = await bench.open(await shell(bench.docker, "echo fine"))
    assert await box.answer() == b"fine\n"
    await bench.docker.containers.container(box.sandbox.container_id).kill()
    await box.becomes_useless()
    assert (await box.call()).was_refused


async def test_an_image_that_is_nowhere(bench: Bench) -> None:
    """No registry answers here, or it does not have it: either way within bounds."""
    result = await bench.run_image("registry.invalid/nobody/nothing:1")
    reached = judged(result)
    assert isinstance(reached, messages.Failed)
    assert CODES[reached.code].word == "image_pull"
    assert reached.message.startswith("Failed to pull image 'registry.invalid/nobody/nothing:1': ")


async def test_an_image_that_many_wait_for_is_pulled_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulls = []

    async def pull(name: str, _: object) -> None:
        pulls.append(name)
        await asyncio.sleep(0.1)
        raise engine.PullTroubled("not there", Trouble.ABSENT)

    monkeypatch.setattr(bench.engine, "pull", pull)
    name = "registry.invalid/nobody/nothing:1"
    results = await asyncio.gather(*(bench.run_image(name) for _ in range(8)))
    assert [result.ending for result in results] == [runs.PullFailed(name, "not there")] * 8
    assert pulls == [name]


@pytest.mark.parametrize("name", ["UPPER case!", "../containers/json", "a?b", "", "a..b"])
async def test_an_image_name_no_engine_accepts(bench: Bench, name: str) -> None:
    assert code_of(await bench.run_image(name)) == "image_invalid"


async def tagged(bench: Bench, name: str, word: str) -> str:
    """Give a name to an image that says a word; return the image's own tag."""
    made = await build(
        bench.docker, "moving", f"RUN echo {word} > /word", 'ENTRYPOINT ["cat", "/word"]'
    )
    await bench.docker.images.tag(made, f"millrace-test/{name}", tag="1")
    return made


async def test_an_image_built_anew_under_its_name_is_the_one_that_runs(bench: Bench) -> None:
    for word in ("one", "two"):
        await tagged(bench, "moved", word)
        bench.images.forget()
        assert (await bench.run_image("millrace-test/moved:1")).body.decode() == f"{word}\n"


async def test_until_it_is_known_that_a_name_has_moved_the_old_image_runs_as_a_whole(
    bench: Bench,
) -> None:
    """Not the new image with the old one's command, under the old one's digest."""
    found = []
    for word in ("one", "two"):
        await tagged(bench, "moved-unseen", word)
        found.append(await bench.run_image("millrace-test/moved-unseen:1"))
    assert [result.body for result in found] == [b"one\n", b"one\n"]
    assert found[0].digest == found[1].digest


async def test_an_image_that_was_removed_and_built_anew_runs(bench: Bench) -> None:
    """Of which nobody has told the runner."""
    for number in range(2):
        word = secrets.token_hex(4)
        made = await tagged(bench, "removed", word)
        assert (await bench.run_image("millrace-test/removed:1")).body.decode() == f"{word}\n"
        if number == 0:
            await bench.docker.images.delete("millrace-test/removed:1")
            await bench.docker.images.delete(made)


async def test_an_engine_that_is_not_there() -> None:
    away = engine.Engine("unix:///nonexistent/docker.sock")
    with pytest.raises(engine.EngineAway):
        await away.ping()
    with pytest.raises(engine.EngineAway):
        await away.create({"Image": BUSYBOX})
    await away.close()


async def test_a_namespace_somebody_removed_is_made_again(bench: Bench) -> None:
    await bench.run("true")
    for container_id in bench.holders.known():
        await bench.engine.remove(container_id)
    assert judged(await bench.run("echo fine")) == messages.Answered(b"fine\n")


async def test_a_folder_that_cannot_be_used_is_told(bench: Bench) -> None:
    (bench.places.here / "init").rename(bench.places.here / "elsewhere")
    with pytest.raises(sandbox.Unopened) as caught:
        await bench.open(await shell(bench.docker, "true"))
    assert isinstance(caught.value.ending, runs.Broken)
    (bench.places.here / "elsewhere").rename(bench.places.here / "init")
