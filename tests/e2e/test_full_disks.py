"""What happens when a disk is full: Redis', the runner's, MySQL's? And when it is so no more?"""

import asyncio
import os
import secrets
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from testcontainers.core.container import DockerContainer

from tests.conftest import MYSQL_IMAGE, REDIS_IMAGE, MysqlServer, container_ip, eventually, wait_for
from tests.e2e.client import Client
from tests.e2e.conftest import World, wait_for_redis
from tests.e2e.load import accept
from tests.e2e.platforms import database
from tests.e2e.test_async import TELL, all_recorded

Image = Callable[[str], str]
#: After there is room again, what failed works within so many seconds: MySQL looks each minute.
BACK_S = 120
_FILL = "dd if=/dev/zero of={0}/fill bs=64k 2>/dev/null; dd if=/dev/zero of={0}/rest bs=512; true"


def small(image: str, folder: str, megabytes: int) -> DockerContainer:
    """Return a container that has a small disk of its own at a folder."""
    return DockerContainer(image).with_tmpfs_mount(
        folder, f"size={megabytes}m,uid=999,gid=999,mode=0755"
    )


async def have(container: DockerContainer, script: str) -> None:
    """Run a script in a container."""
    await asyncio.to_thread(container.exec, ["sh", "-c", script])


async def test_a_redis_with_a_full_disk_takes_nothing_and_loses_nothing(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    world: World,
    function_image: Image,
) -> None:
    command = "redis-server --appendonly yes --protected-mode no"
    with small(REDIS_IMAGE, "/data", 32).with_command(command) as redis:
        url = f"redis://{container_ip(redis)}:6379"
        wait_for_redis(url)
        # What is accepted last may wait for its answer until its deadline: that is soon.
        with new_platform(MQ_URL=url, CAPACITY_WAIT_S="3") as platform:
            platform.start()
            client = Client(http, platform.url)
            sync = await client.deploy(app, "/sync", function_image("exec cat"), timeout=3)
            image = function_image(f"sleep 0.3; {TELL}")
            path = await client.deploy(app, "/x", image, type="async", config=world.config)
            assert (await client.post(sync, data=b"x")).body == b"x"
            accepted = await accept(client, path, 30)
            await have(redis, _FILL.format("/data"))

            async def refused() -> bool:
                answers = [await client.post(path, data=b"x") for path in (sync, path)]
                accepted.extend(a.json()["call_id"] for a in answers if a.status == 202)
                assert {a.status for a in answers} <= {200, 202, 503, 504}
                return all(a.status == 503 and "MISCONF" in a.message for a in answers)

            await eventually(refused, 60)
            await have(redis, "rm /data/fill /data/rest")

            async def works() -> bool:
                return (await client.post(sync, data=b"y")).status == 200

            await eventually(works, BACK_S)
            done = await all_recorded(client, app, "success", len(accepted), path="/x")
            ids = Counter(call["id"] for call in done)
            assert set(accepted) <= set(ids)
            assert set(ids.values()) == {1}
            assert {path.lstrip("/") for path in world.hits} >= set(accepted)


@contextmanager
def small_folder() -> Iterator[Path]:
    """Give a folder on a disk for few files. Needs root, as the whole of `make test` does."""
    folder = Path(f"/tmp/small-{secrets.token_hex(4)}")
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=64", "none", folder], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a disk")
async def test_a_runner_with_a_full_disk_says_so_and_works_again_when_there_is_room(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    function_image: Image,
) -> None:
    with small_folder() as folder, new_platform(RUNNER_FOLDER=str(folder)) as platform:
        platform.start()
        client = Client(http, platform.url)
        image = function_image("exec cat")
        known = await client.deploy(app, "/known", image)
        assert (await client.post(known, data=b"x")).body == b"x"
        filled = 0
        try:
            while True:
                (folder / f"fill-{filled}").touch()
                filled += 1
        except OSError:
            pass
        new = await client.deploy(app, "/new", image, memory=64)
        refused = await client.post(new, data=b"x")
        assert (refused.status, refused.fault) == (500, "platform"), refused.text
        assert "RUNNER_FOLDER" in refused.message
        assert "No space left" in refused.message
        assert (await client.post(known, data=b"x")).body == b"x", "it has its sandbox already"
        for number in range(filled):
            (folder / f"fill-{number}").unlink()

        async def works() -> bool:
            return (await client.post(new, data=b"x")).body == b"x"

        await eventually(works, 30)


async def test_records_wait_for_a_mysql_with_a_full_disk(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    function_image: Image,
) -> None:
    password = secrets.token_hex(8)
    mysql = small(MYSQL_IMAGE, "/var/lib/mysql", 400).with_env("MYSQL_ROOT_PASSWORD", password)
    with mysql:
        server = MysqlServer(container_ip(mysql), password)
        wait_for(lambda: lets_in(server))
        with database(server) as url, new_platform(DB_URL=url) as platform:
            platform.start()
            client = Client(http, platform.url)
            sync = await client.deploy(app, "/sync", function_image("exec cat"))
            large = function_image("head -c 900000 /dev/zero | tr '\\0' x")
            path = await client.deploy(app, "/x", large, type="async")
            known = [await client.post(sync, data=b"x")]
            accepted = await accept(client, path, 1)
            await all_recorded(client, app, "success", 2)
            await have(mysql, _FILL.format("/var/lib/mysql"))
            accepted += await accept(client, path, 32)

            async def waits() -> bool:
                api = platform.first("api")
                return "records_wait" in api.log_tail()

            await eventually(waits, 60)
            known += [await client.post(sync, data=b"x") for _ in range(5)]
            assert {answer.status for answer in known} == {200}
            await have(mysql, "rm /var/lib/mysql/fill /var/lib/mysql/rest")
            done: list[dict[str, Any]] = []

            async def recorded() -> bool:
                try:
                    done[:] = await client.calls(app, status="success", limit="1000")
                except AssertionError:
                    return False
                return len(done) >= len(accepted) + len(known)

            await eventually(recorded, BACK_S)
            made = [*accepted, *(answer.call_id for answer in known)]
            assert Counter(call["id"] for call in done) == Counter(made)
            result = await client.get(f"/v1/calls/{accepted[-1]}/result")
            assert result.body == b"x" * 900_000


def lets_in(server: MysqlServer) -> bool:
    """Say whether a MySQL lets somebody in."""
    with database(server):
        return True
