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
        assert len({*ids, await bench.engine.ensure_network(config)}) <= 2
        assert await bench.engine.ensure_network(config) in ids
    finally:
        for network in await bench.docker.networks.list():
            if network["Name"] == name:
                await (await bench.docker.networks.get(network["Id"])).delete()


async def test_the_image_of_the_tests_is_there(bench: Bench) -> None:
    assert (await bench.engine.image(BUSYBOX)).digest.startswith("sha256:")
