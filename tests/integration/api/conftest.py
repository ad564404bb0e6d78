"""What do the api's tests share? A replica in this process, on real stores."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from services.api.app import build_app
from services.api.settings import Settings
from shared import streams
from tests.integration.api.invoking import Api, EchoRunner, serving

Client = TestClient[web.Request, web.Application]
#: Starts a replica with these settings beside the stores' and gives a client of it.
Replica = Callable[..., Awaitable[Client]]


@pytest.fixture
async def replica(
    redis: streams.Redis,  # noqa: ARG001 (it empties Redis)
    redis_server: str,
    database: str,
) -> AsyncIterator[Replica]:
    """Start replicas on the same empty stores; they end with the test."""
    clients: list[Client] = []

    async def start(**settings: Any) -> Client:
        app = build_app(Settings(db_url=database, mq_url=redis_server, **settings))
        client = TestClient(TestServer(app, auto_decompress=False))
        await client.start_server()
        clients.append(client)
        return client

    yield start
    for client in clients:
        await client.close()


@pytest.fixture
async def client(replica: Replica) -> Client:
    """A client of one replica with the default settings."""
    return await replica()


@pytest.fixture
async def api(redis: streams.Redis, redis_server: str, database: str) -> AsyncIterator[Api]:
    """A replica on empty stores, behind a port as in real life."""
    assert await redis.dbsize() == 0
    async with serving(redis_server, database) as running:
        yield running


@pytest.fixture
async def runner(redis: streams.Redis) -> AsyncIterator[EchoRunner]:
    """The far side: calls are answered."""
    async with EchoRunner(redis) as running:
        yield running
