"""Do functions run as promised, each in its confinement, on the real engine?"""

import asyncio
import os
import re
from pathlib import Path

import pytest

from services.runner import engine, outcome, runs, sandbox
from shared import clock, messages
from tests.conftest import eventually
from tests.integration.runner.conftest import BUSYBOX, Bench, build, digest, head, shell

MIB = 1024 * 1024
#: No capability at all.
NONE = "0" * 16


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def judged(result: runs.Result) -> messages.Outcome:
    return outcome.judge(result, "img", None)


def code_of(result: runs.Result) -> str:
    reached = judged(result)
    return reached.code if isinstance(reached, messages.Failed) else "ok"


async def test_a_mib_of_random_bytes_comes_back_unchanged(bench: Bench) -> None:
    payload = os.urandom(MIB)
    result = await bench.run("cat", payload)
    assert result.stdout == payload
    assert result.digest.startswith("sha256:")
    assert result.started_ms is not None


async def test_fifty_different_calls_at_once_each_get_their_own_answer(bench: Bench) -> None:
    image = await shell(bench.docker, "cat; echo $N")
    results = await asyncio.gather(
        *(bench.run_image(image, b"%d:" % n, env={"N": str(n)}) for n in range(50))
    )
    assert [r.stdout for r in results] == [b"%d:%d\n" % (n, n) for n in range(50)]
    assert await bench.containers() == []


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


@pytest.mark.parametrize("script", ["tail /dev/zero", "exec tail /dev/zero"])
async def test_out_of_memory(bench: Bench, script: str) -> None:
    result = await bench.run(script, memory_mb=32)
    assert judged(result) == messages.Failed("out_of_memory", "out of memory error", 137)


async def test_an_endless_answer_is_cut_off(bench: Bench) -> None:
    result = await bench.run("yes")
    assert code_of(result) == "response_too_large"
    assert result.stdout == b""


async def test_an_endless_log_is_cut_visibly(bench: Bench) -> None:
    result = await bench.run("yes | head -c 1000000 >&2; echo done")
    assert result.stdout == b"done\n"
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
    assert (await bench.run(script, bytes(4 * MIB))).stdout == answer


async def test_a_function_may_close_its_output_early(bench: Bench) -> None:
    result = await bench.run("echo out; exec >&-; sleep 0.3; cat >/dev/null; exit 4", b"x")
    assert judged(result) == messages.Failed("exit", "exit code 4", 4)


async def test_the_environment_is_exact(bench: Bench) -> None:
    now_ms = clock.epoch_ms()
    result = await bench.run(
        "env | sort", env={"METHOD": "GET", "B": "2 =\"'$x"}, config={"A": "1", "METHOD": "no"}
    )
    seen = dict(line.split("=", 1) for line in result.stdout.decode().splitlines())
    deadline_ms = int(seen.pop("DEADLINE"))
    assert now_ms + 30_000 <= deadline_ms <= clock.epoch_ms() + 30_000
    for of_the_shell in ("PWD", "SHLVL", "PATH", "HOME", "HOSTNAME", "_"):
        seen.pop(of_the_shell, None)
    assert seen == {"METHOD": "GET", "B": "2 =\"'$x", "A": "1"}


async def test_limits_are_really_set(bench: Bench) -> None:
    script = """
    cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null
    cat /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes 2>/dev/null || echo none
    cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null
    grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status
    ulimit -n; ulimit -c
    """
    lines = (await bench.run(script, memory_mb=48)).stdout.decode().split()
    assert lines[0] == str(48 * MIB)
    assert lines[1] in {str(48 * MIB), "none"}
    assert lines[2] == "64"
    assert lines[3:] == ["CapEff:", NONE, "CapBnd:", NONE, "NoNewPrivs:", "1", "1024", "0"]


async def test_no_file_grows_beyond_its_limit(bench: Bench) -> None:
    result = await bench.run("head -c 33554432 /dev/zero > /tmp/f; wc -c < /tmp/f")
    assert int(result.stdout) == 16 * MIB


async def test_a_fork_bomb_ends_while_others_go_on(bench: Bench) -> None:
    stop = asyncio.Event()
    bomb = asyncio.create_task(bench.run("b() { b | b & b; }; b", stop=stop))
    assert (await bench.run("echo fine")).stdout == b"fine\n"
    await asyncio.wait({bomb}, timeout=2)
    stop.set()
    assert code_of(await bomb) != "ok"
    assert await bench.containers() == []


async def test_a_stopped_run_is_over_at_once(bench: Bench) -> None:
    """As for a timeout or a caller who leaves: what it wrote is kept."""
    image = await shell(bench.docker, "echo log >&2; sleep 600")
    running, stop = asyncio.Event(), asyncio.Event()
    job = runs.Job(head(image=image), messages.Parcel({}, {}, b""))

    async def call() -> tuple[runs.Result, float]:
        async with bench.sandboxes.run(job, running.set, stop) as result:
            return result, clock.monotonic_s()

    calling = asyncio.create_task(call())
    await running.wait()
    asked_s = clock.monotonic_s()
    stop.set()
    result, over_s = await calling
    assert result.ending == runs.Stopped()
    assert result.log == b"log\n"
    assert result.peak_memory_bytes is not None
    assert over_s - asked_s < 2 * sandbox.STOP_GRACE_S
    assert await bench.containers() == []


async def test_a_run_stopped_before_its_start_never_starts(bench: Bench) -> None:
    stop = asyncio.Event()
    stop.set()
    result = await bench.run("echo no", stop=stop)
    assert (result.ending, result.started_ms) == (runs.Stopped(), None)


async def test_an_image_that_is_nowhere(bench: Bench) -> None:
    """No registry answers here, or it does not have it: either way within bounds."""
    result = await bench.run_image("registry.invalid/nobody/nothing:1")
    reached = judged(result)
    assert isinstance(reached, messages.Failed)
    assert reached.code == "image_pull"
    assert reached.message.startswith("Failed to pull image 'registry.invalid/nobody/nothing:1': ")


@pytest.mark.parametrize(
    "instructions",
    [
        ('ENTRYPOINT ["/nope"]',),
        ('ENTRYPOINT ["/etc"]',),
        ("USER nobodyknows", 'ENTRYPOINT ["/bin/sh"]'),
    ],
)
async def test_an_image_nothing_can_be_started_from(
    bench: Bench, instructions: tuple[str, ...]
) -> None:
    name = f"millrace-test/bad:{digest(repr(instructions))}"
    image = await build(bench.docker, name, *instructions)
    assert code_of(await bench.run_image(image)) == "image_invalid"
    assert await bench.containers() == []


@pytest.mark.parametrize("name", ["UPPER case!", "../containers/json", "a?b", "", "a..b"])
async def test_an_image_name_no_engine_accepts(bench: Bench, name: str) -> None:
    assert code_of(await bench.run_image(name)) == "image_invalid"


async def test_the_images_own_user_and_folder_hold(bench: Bench) -> None:
    image = await build(
        bench.docker,
        "millrace-test/user:1",
        "WORKDIR /work",
        "USER 1234",
        'ENTRYPOINT ["/bin/sh", "-c", "id -u; pwd"]',
    )
    assert (await bench.run_image(image)).stdout == b"1234\n/work\n"


async def test_an_image_built_anew_under_its_name_is_the_one_that_runs(bench: Bench) -> None:
    for word in ("one", "two"):
        command = f'ENTRYPOINT ["echo", "{word}"]'
        image = await build(bench.docker, "millrace-test/moving:1", command)
        assert (await bench.run_image(image)).stdout.decode() == f"{word}\n"


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


async def test_nothing_is_left_after_many_calls(bench: Bench) -> None:
    image = await shell(bench.docker, "cat")
    await bench.run_image(image)
    tasks, sockets = len(asyncio.all_tasks()), open_files()
    for _ in range(3):
        await asyncio.gather(*(bench.run_image(image, b"x") for _ in range(4)))

    async def as_before() -> bool:
        # Kept-alive connections to the engine are shared by all calls; some may be new.
        few_sockets = open_files() <= sockets + 12
        return len(asyncio.all_tasks()) <= tasks and few_sockets

    await eventually(as_before)
    assert await bench.containers() == []
