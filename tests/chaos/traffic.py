"""Who calls amid the chaos? A steady load of all kinds of calls that can be told apart."""

import asyncio
import io
import itertools
import random
from dataclasses import dataclass, field

import aiohttp
import msgspec

from shared import clock
from tests.chaos.routes import KINDS, Kind
from tests.chaos.seen import ACCEPTED, Seen
from tests.chaos.stage import Replica

#: Calls under way at one time; beyond, the next waits for one to end.
UNDER_WAY_MAX = 128
#: A caller who leaves does so after at most this, in seconds.
_LEAVES_WITHIN_S = 0.5
#: Sizes of bodies: most are small, some are too large for the entry of a call.
_SIZES = (16, 16, 16, 1_000, 20_000, 200_000)


@dataclass
class Traffic:
    """Calls an app of a platform at a steady rate, as long as it is wanted."""

    session: aiohttp.ClientSession
    app: str
    apis: list[Replica]
    chosen: random.Random
    seen: list[tuple[Seen, bool]] = field(default_factory=list)
    #: Calls that were accepted, with what was sent.
    accepted: dict[str, Seen] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def flow(self, rate: float, over: asyncio.Event) -> None:
        """Make `rate` calls a second until `over` is set; return when all of them have ended."""
        kinds = [kind for kind in KINDS for _ in range(kind.share)]
        room = asyncio.Semaphore(UNDER_WAY_MAX)
        async with asyncio.TaskGroup() as calls:
            while not over.is_set():
                await asyncio.sleep(self.chosen.expovariate(rate))
                await room.acquire()
                call = calls.create_task(self._call(self.chosen.choice(kinds)))
                call.add_done_callback(lambda _: room.release())

    async def _call(self, kind: Kind) -> None:
        api = self._api()
        marked = b"<%d>" % next(self._numbers)
        sent = marked + self.chosen.randbytes(self.chosen.choice(_SIZES))
        began_s = clock.monotonic_s()
        status, body, broken = await self._ask(api, kind, sent)
        took_s = clock.monotonic_s() - began_s
        found = Seen(kind, sent, began_s, took_s, status, body, _code(status, body), broken)
        self.seen.append((found, api.harmed(began_s, began_s + took_s)))
        if status == ACCEPTED:
            self.accepted[msgspec.json.decode(body)["call_id"]] = found

    def _api(self) -> Replica:
        """Choose a replica, as a load balancer does that has noticed which are well."""
        now_s = clock.monotonic_s()
        well = [api for api in self.apis if not api.harmed(now_s, now_s)]
        return self.chosen.choice(well or self.apis)

    async def _ask(self, api: Replica, kind: Kind, sent: bytes) -> tuple[int | None, bytes, str]:
        leaves = kind.ending == "caller leaves"
        patience_s = self.chosen.uniform(0, _LEAVES_WITHIN_S) if leaves else None
        url = f"{api.service.url}/r/{self.app}{kind.path}"
        try:
            async with (
                asyncio.timeout(patience_s),
                self.session.post(url, data=io.BytesIO(sent)) as response,
            ):
                return response.status, await response.read(), ""
        except (aiohttp.ClientError, OSError) as error:
            return None, b"", repr(error)


def _code(status: int | None, body: bytes) -> str:
    """Return the word by which a failure is told; "" if there is none."""
    if status is None or status < 400:
        return ""
    try:
        return str(msgspec.json.decode(body)["error"]["code"])
    except (msgspec.DecodeError, LookupError, TypeError):
        return ""
