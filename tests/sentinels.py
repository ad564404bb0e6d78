"""A Redis that fails over: a master, two replicas and three sentinels, each in a container."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import redis as redis_sync
from testcontainers.core.container import DockerContainer

from tests.conftest import REDIS_IMAGE, container_ip, eventually, wait_for

NAME = "main"
#: After so long without an answer a server is down, for a sentinel.
DOWN_AFTER_MS = 1000
#: Stays in its container when the server dies, so that its address is nobody else's meanwhile.
_SERVER = """\
echo 'appendonly yes' > /data/r.conf
while true; do
    redis-server /data/r.conf --protected-mode no --repl-diskless-sync-delay 0 \\
        --pidfile /data/pid {more}
    while [ -e /data/down ]; do sleep 0.1; done
done
"""
_SENTINEL = f"""\
port 26379
protected-mode no
sentinel monitor {NAME} {{master}} 6379 2
sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}
sentinel failover-timeout {NAME} 5000
sentinel parallel-syncs {NAME} 2
"""


@dataclass(frozen=True)
class Flock:
    """Servers and sentinels by their IP addresses."""

    servers: dict[str, DockerContainer]
    sentinels: dict[str, DockerContainer]

    @property
    def url(self) -> str:
        """Its address, as `MQ_URL` has it."""
        hosts = ",".join(f"{ip}:26379" for ip in self.sentinels)
        return f"redis+sentinel://{hosts}/{NAME}"

    def master(self) -> str:
        """Return the IP address of the server that the sentinels, now, say is the master."""
        said = set()
        for ip in self.sentinels:
            with redis_sync.Redis(ip, 26379, socket_timeout=1, socket_connect_timeout=1) as client:
                host: Any = client.sentinel_get_master_addr_by_name(NAME)[0]
                said.add(host.decode() if isinstance(host, bytes) else host)
        return said.pop() if len(said) == 1 else ""

    def role(self, ip: str) -> str:
        """Return what a server says that it is; "" if it does not answer."""
        try:
            with redis_sync.Redis(ip, socket_timeout=1, socket_connect_timeout=1) as client:
                role: Any = client.role()
                return str(role[0].decode())
        except redis_sync.RedisError:
            return ""

    def kill(self, ip: str) -> None:
        """Kill a server by SIGKILL; it stays dead until `heal`."""
        self._have(ip, "touch /data/down; kill -9 $(cat /data/pid)")

    def _have(self, ip: str, script: str) -> None:
        code, said = self.servers[ip].exec(["sh", "-c", script])
        assert code == 0, said

    def whole(self) -> bool:
        """Say whether a master has all others as replicas, and every sentinel knows all of it."""
        master = self.master()
        if not master or self.role(master) != "master":
            return False
        for ip in self.sentinels:
            with redis_sync.Redis(ip, 26379, socket_timeout=1) as client:
                known: Any = client.sentinel_master(NAME)
                replicas: Any = client.sentinel_slaves(NAME)
                states = (known, *replicas)
                if known["num-other-sentinels"] != len(self.sentinels) - 1 or any(
                    state["is_sdown"] or state["is_odown"] for state in states
                ):
                    return False
        with redis_sync.Redis(master, socket_timeout=1) as client:
            info: Any = client.info("replication")
            online = [info.get(f"slave{n}", {}).get("state") for n in range(len(self.servers) - 1)]
            return set(online) == {"online"}

    async def heal(self) -> None:
        """Start what was killed, and wait until all are together again."""
        for ip in self.servers:
            await asyncio.to_thread(self._have, ip, "rm -f /data/down")

        async def whole() -> bool:
            try:
                return await asyncio.to_thread(self.whole)
            except redis_sync.RedisError:
                return False

        await eventually(whole, 60)


@contextmanager
def flock() -> Iterator[Flock]:
    """Give one whose replicas are in step."""
    with ExitStack() as stack:

        def started(script: str) -> tuple[str, DockerContainer]:
            container = DockerContainer(REDIS_IMAGE).with_command(["sh", "-c", script])
            stack.enter_context(container)
            return container_ip(container), container

        master, first = started(_SERVER.format(more=""))
        servers = {master: first}
        wait_for(lambda: redis_sync.Redis(master).ping())
        for _ in range(2):
            ip, container = started(_SERVER.format(more=f"--replicaof {master} 6379"))
            servers[ip] = container
        conf = _SENTINEL.format(master=master)
        start = f"printf '%s' '{conf}' > /data/s.conf && exec redis-server /data/s.conf --sentinel"
        sentinels = dict(started(start) for _ in range(3))
        made = Flock(servers, sentinels)
        wait_for(made.whole)
        yield made
