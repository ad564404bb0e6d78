"""What can a function reach? Not another function, not what is on other networks; but the world."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from services.runner import containers
from services.runner.engine import EngineError
from shared import streams
from tests.integration.runner.bench import NETWORK, Bench
from tests.integration.runner.functions import BUSYBOX, shell


@pytest.fixture
async def host_server(bench: Bench) -> AsyncIterator[tuple[str, int]]:
    """A server of this machine at an address of it, which plays the world."""
    network = await (await bench.docker.networks.get(NETWORK)).show()
    address = network["IPAM"]["Config"][0]["Gateway"]
    # The bridge has its address only while a container is on it.
    await bench.run("true")

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello from the world\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, address, 0)
    yield address, server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


async def test_the_world_is_in_reach(bench: Bench, host_server: tuple[str, int]) -> None:
    address, port = host_server
    result = await bench.run(f"nc -w 3 {address} {port} </dev/null")
    assert result.body == b"hello from the world\n"


async def test_redis_on_another_network_is_out_of_reach(bench: Bench, redis: streams.Redis) -> None:
    address = redis.connection_pool.connection_kwargs["host"]
    assert await redis.ping()
    script = f"echo PING | nc -w 2 {address} 6379 && echo reached"
    assert b"reached" not in (await bench.run(script)).body


async def test_another_function_is_out_of_reach(bench: Bench) -> None:
    image = await shell(bench.docker, "nc -l -p 7000 -e echo reached & sleep 600")
    other = await bench.open(image, app="other")
    caller = other.begin()
    (address,) = await addresses(bench)
    result = await bench.run(f"nc -w 2 {address} 7000 </dev/null; echo over")
    assert result.body == b"over\n"
    assert not caller.over


async def test_what_a_call_listens_at_is_gone_by_the_next(bench: Bench) -> None:
    image = await shell(
        bench.docker,
        "nc -w 1 127.0.0.1 7000 </dev/null; nc -l -p 7000 -e echo reached & "
        "until netstat -lt | grep -q 7000; do sleep 0.01; done",
    )
    async with bench.opened(image) as box:
        for _ in range(3):
            assert await box.answer() == b""


LISTENS = "nc -l -p 7000 -e echo reached; echo over"
#: Ask until there is an answer, or so many times.
ASKS = "until test $((n += 1)) -gt $TRIES || nc -w 1 127.0.0.1 7000 </dev/null; do sleep 0.01; done"


async def test_the_sandboxes_of_an_app_meet_on_its_network(bench: Bench) -> None:
    """As docs/isolation.md says: they share a loopback, and its ports."""
    listening = await bench.open(await shell(bench.docker, LISTENS), path="/one")
    caller = listening.begin()
    result = await bench.run(ASKS, env={"TRIES": "1000"}, path="/other")
    assert result.body == b"reached\n"
    assert (await caller.result()).body == b"over\n"


async def test_a_port_that_a_sandbox_of_the_app_has_is_refused(bench: Bench) -> None:
    """Visibly: the function is told, and its caller gets what it makes of that."""
    image = await shell(bench.docker, LISTENS)
    first, second = await bench.open(image), await bench.open(image)
    callers = [first.begin(), second.begin()]
    await asyncio.wait(
        [asyncio.create_task(c.result()) for c in callers], return_when="FIRST_COMPLETED"
    )
    (loser,) = [caller for caller in callers if caller.over]
    result = await loser.result()
    assert b"Address already in use" in result.log


@pytest.mark.parametrize("isolation", ["network", "call"])
async def test_a_route_can_have_a_network_for_each_of_its_sandboxes(
    bench: Bench, isolation: str
) -> None:
    """Each of them has the port, and none reaches the other's."""
    script = f"nc -l -p 7000 -e echo $NAME & {ASKS}; wait"
    image = await shell(bench.docker, script)
    boxes = [await bench.open(image, isolation=isolation) for _ in range(2)]
    callers = [
        box.begin(env={"NAME": name, "TRIES": "1000"})
        for box, name in zip(boxes, "ab", strict=True)
    ]
    assert [(await caller.result()).body for caller in callers] == [b"a\n", b"b\n"]
    assert len(bench.holders.known()) == 2

    listening = (await bench.open(image, isolation=isolation, path="/alone")).begin(
        env={"TRIES": "0"}
    )
    asker = await shell(bench.docker, ASKS)
    for asked_from in ("sandbox", isolation):
        asked = await bench.run_image(asker, env={"TRIES": "3"}, isolation=asked_from)
        assert asked.body == b""
    assert not listening.over


async def addresses(bench: Bench) -> list[str]:
    """Return the addresses of the namespaces now in use."""
    found = []
    for container_id in bench.holders.known():
        shown = await bench.docker.containers.container(container_id).show()
        found.append(shown["NetworkSettings"]["Networks"][NETWORK]["IPAddress"])
    return found


async def test_a_call_leaves_nothing_in_its_namespace_for_the_next(bench: Bench) -> None:
    result = await bench.run("echo 6.6.6.6 evil >> /etc/hosts; echo x > /etc/resolv.conf; echo $?")
    assert result.body == b"1\n"
    again = await bench.run("cat /etc/hosts /etc/resolv.conf; nc -l -p 7000 & sleep 0.1")
    assert b"evil" not in again.body


async def test_the_engine_is_out_of_reach(bench: Bench) -> None:
    result = await bench.run(
        "ls /var/run/docker.sock /run/docker.sock; mount | grep -c docker.sock"
    )
    assert b"0\n" in result.body


async def test_a_network_that_does_not_isolate_is_refused(bench: Bench) -> None:
    name = f"millrace-test-{secrets.token_hex(3)}"
    network = await bench.docker.networks.create({"Name": name, "Driver": "bridge"})
    try:
        with pytest.raises(EngineError, match="lets containers reach each other"):
            await bench.engine.ensure_network(containers.network(name, "x"))
    finally:
        await network.delete()


async def test_replicas_that_make_the_network_at_once_agree(bench: Bench) -> None:
    name = f"millrace-test-{secrets.token_hex(3)}"
    config = containers.network(name, "x")
    try:
        ids = await asyncio.gather(*(bench.engine.ensure_network(config) for _ in range(4)))
        # Of two with one name the engine lets no container join either.
        named = [n["Id"] for n in await bench.docker.networks.list() if n["Name"] == name]
        assert set(ids) == set(named)
        assert len(named) == 1
    finally:
        for network in await bench.docker.networks.list():
            if network["Name"] == name:
                await (await bench.docker.networks.get(network["Id"])).delete()


async def test_the_image_of_the_tests_is_there(bench: Bench) -> None:
    assert (await bench.engine.image(BUSYBOX)).digest.startswith("sha256:")
