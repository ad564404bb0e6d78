"""What if Redis has no memory left? Nothing new is taken, nothing that was accepted is lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio as redis_asyncio

from tests.conftest import MysqlServer, eventually
from tests.e2e.client import Client
from tests.e2e.conftest import redis_container
from tests.e2e.platforms import Platform, database
from tests.e2e.test_conformance_copy import CAT

MIB = 1024 * 1024


@pytest.mark.usefixtures("_engine")
async def test_a_full_redis_refuses_and_loses_nothing(
    http: aiohttp.ClientSession,
    mysql_server: MysqlServer,
    app: str,
    function_image: Callable[[str], str],
    tmp_path: Path,
) -> None:
    """Accept until no more is taken; then let a scheduler and a runner begin, in the full Redis."""
    with (
        redis_container() as (_, redis_url),
        database(mysql_server) as db_url,
        Platform(db_url, redis_url, tmp_path) as platform,
    ):
        platform.add("api").wait_ready()
        client = Client(http, platform.url)
        sync = await client.deploy(app, "/now", function_image(CAT), timeout=10)
        path = await client.deploy(app, "/later", function_image(CAT), type="async")
        async with redis_asyncio.Redis.from_url(redis_url) as redis:
            used: dict[str, Any] = await redis.info("memory")
            await redis.config_set("maxmemory", used["used_memory"] + 6 * MIB)
            accepted: dict[str, bytes] = {}
            while (answer := await client.post(path, data=_body(len(accepted)))).status == 202:
                accepted[answer.json()["call_id"]] = _body(len(accepted))
            assert len(accepted) > 20
            for refused in (answer, await client.post(sync, data=_body(0))):
                assert (refused.status, refused.code) == (503, "unavailable")
                assert "used memory" in refused.message
                assert int(refused.headers["Retry-After"]) > 0
            for role in ("scheduler", "runner"):
                platform.add(role).wait_ready()

            async def done() -> bool:
                calls = await client.calls(app, status="success", limit="1000")
                return {call["id"] for call in calls} == accepted.keys()

            await eventually(done, 60)
            for call_id, body in accepted.items():
                assert (await client.get(f"/v1/calls/{call_id}/result")).body == body

            async def taken_again() -> bool:
                return (await client.post(sync, data=b"again")).body == b"again"

            await eventually(taken_again, 15)
            assert (await client.post(path, data=b"again")).status == 202


def _body(number: int) -> bytes:
    return (b"<%06d>" % number) * 10_000
