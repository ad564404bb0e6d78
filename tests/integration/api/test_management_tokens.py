"""Does management ask for its token where it should, and only there?"""

import time

import jwt

from tests.integration.api.conftest import Client, Replica

KEY = "a secret of thirty-two characters at least"
REFUSED = {"error": "Invalid API Authorization token."}


def token(key: str = KEY, **claims: float) -> str:
    return jwt.encode(claims, key, algorithm="HS256")


async def status(client: Client, path: str, authorization: str | None = None) -> int:
    headers = {"Authorization": authorization} if authorization else {}
    async with client.get(path, headers=headers) as response:
        if response.status == 401:
            assert await response.json() == REFUSED
        return response.status


async def test_with_a_key_management_needs_a_token(replica: Replica) -> None:
    client = await replica(jwt_auth_key=KEY)
    for path in ("/v1/apps", "/v1/routes", "/v1/apps/a", "/tasks", "/v1/tasks", "/stats"):
        assert await status(client, path) == 401, path
        assert await status(client, path, f"Bearer {token()}") != 401, path
    for path in ("/", "/version", "/healthz", "/readyz", "/metrics", "/openapi.json", "/r/a/b"):
        assert await status(client, path) != 401, path


async def test_a_token_must_be_good(replica: Replica) -> None:
    client = await replica(jwt_auth_key=KEY)
    now = time.time()
    assert await status(client, "/v1/apps", token(exp=now + 60)) == 200
    for bad in (token(exp=now - 60), token("another key, also long enough for it"), "nonsense"):
        assert await status(client, "/v1/apps", f"Bearer {bad}") == 401


async def test_without_a_key_management_is_open(client: Client) -> None:
    assert await status(client, "/v1/apps") == 200
