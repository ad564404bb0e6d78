"""Does a runner remove what the dead have left, and nothing else? Redis and engine are fakes."""

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from services.runner import heartbeat, state
from services.runner.contact import RESTART_S, Contact
from services.runner.engine import EngineInfo, Found
from services.runner.janitor import Sign, folder_name
from services.runner.settings import Settings
from services.runner.upkeep import Upkeep
from shared import clock, messages
from shared.errors import Refused, Unavailable
from tests.conftest import eventually

ME, DEAD = "runner-here-0123abcd", "runner-there-4567cdef"


@dataclass
class FlakyRedis:
    """A Redis that has the heartbeats of runners, unless it is away."""

    beats: dict[bytes, bytes] = field(default_factory=dict)
    away: bool = False

    async def hgetall(self, _: str) -> dict[bytes, bytes]:
        if self.away:
            raise RedisConnectionError
        return self.beats

    def beat(self, runner_id: str, ago_ms: int) -> None:
        sent_ms = clock.epoch_ms() - ago_ms
        beat = messages.Heartbeat(runner_id, "e", sent_ms, 1, 1.0, "amd64")
        self.beats[runner_id.encode()] = messages.encode(beat)


@dataclass
class ListingEngine:
    """An engine with containers that can be listed and removed."""

    containers: list[Found]

    async def labelled(self, _: str) -> list[Found]:
        return list(self.containers)

    async def remove(self, container_id: str) -> None:
        self.containers = [c for c in self.containers if c.container_id != container_id]


@dataclass
class Place:
    """A runner's upkeep with what it acts on."""

    folder: Path
    redis: FlakyRedis = field(default_factory=FlakyRedis)
    engine: ListingEngine = field(
        default_factory=lambda: ListingEngine([Found("c1", DEAD, "1", 0), Found("c2", ME, "7", 0)])
    )

    def __post_init__(self) -> None:
        (self.folder / folder_name(ME)).mkdir()
        settings = Settings(runner_folder=str(self.folder))
        holders = SimpleNamespace(known=set)
        world = SimpleNamespace(redis=self.redis, engine=self.engine, holders=holders)
        runner = SimpleNamespace(state=SimpleNamespace(pool=SimpleNamespace(ids=lambda: {"7"})))
        self.upkeep = Upkeep(ME, settings, world, EngineInfo("e", 1, 1, "amd64"), runner)

    async def left(self) -> list[str]:
        """Return the containers that are left after a sweep."""
        await self.upkeep._sweep()
        return [container.container_id for container in self.engine.containers]

    def later(self, seconds: float) -> None:
        """Let time pass without a sweep."""
        for seen in (self.upkeep._beats, self.upkeep._touched):
            for name, sign in seen.items():
                seen[name] = Sign(sign.what, sign.since_s - seconds)

    def old_folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        os.utime(folder, (0, 0))
        return folder


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def test_containers_of_the_dead_are_removed(place: Place) -> None:
    place.redis.beat(DEAD, 60_000)
    assert await place.left() == ["c1", "c2"], "it may have beaten just now, by a clock of its own"
    place.later(10)
    assert await place.left() == ["c2"]


async def test_after_an_absence_of_redis_others_have_time_to_be_heard(place: Place) -> None:
    place.redis.beat(DEAD, 60_000)
    place.redis.away = True
    assert await place.left() == ["c1", "c2"]
    place.redis.away = False
    assert await place.left() == ["c1", "c2"]
    place.later(10)
    assert await place.left() == ["c2"]


async def test_folders_of_the_dead_are_removed_whether_or_not_redis_answers(place: Place) -> None:
    place.redis.away = True
    os.utime(place.folder / folder_name(ME), (0, 0))
    dead, strangers = place.old_folder(folder_name(DEAD)), place.old_folder("photos")
    (dead / "7").mkdir()
    os.utime(dead, (0, 0))
    new = place.folder / "89abcdef"
    new.mkdir()
    await place.upkeep._sweep()
    assert dead.exists()
    place.later(121)
    new.touch()
    await place.upkeep._sweep()
    assert not dead.exists()
    assert strangers.exists()
    assert new.exists()
    assert (place.folder / folder_name(ME)).exists()


@dataclass
class Told:
    """What a runner's state was told."""

    emptying: bool = False
    cut: bool = False
    events: list[object] = field(default_factory=list)

    def apply(self, event: object) -> None:
        self.events.append(event)
        if isinstance(event, state.DrainWished):
            self.emptying = event.wished


async def beaten(place: Place, answer: object) -> tuple[Told, float]:
    """Return what the state was told after a heartbeat that got this answer, and when it is due."""
    told = Told()

    async def send(_: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    pool = SimpleNamespace(counts=tuple, idle_mb=lambda: 0)
    known = SimpleNamespace(
        emptying=False, cut=False, able=True, draining=False, calls={}, pool=pool
    )
    place.upkeep._runner = SimpleNamespace(state=known, apply=told.apply)  # type: ignore[assignment]
    place.upkeep._world = SimpleNamespace(outbox=SimpleNamespace(send=send, left_s=None))  # type: ignore[assignment]
    place.upkeep._contact = Contact(5.0, 0.0)
    await place.upkeep._beat()
    return told, place.upkeep._contact.due_s(None)


async def test_the_answer_to_a_heartbeat_says_whether_to_drain(place: Place) -> None:
    told, due_s = await beaten(place, 1)
    assert told.events == [state.DrainWished(wished=True)]
    assert due_s > clock.monotonic_s()
    told, _ = await beaten(place, 0)
    assert told.events == []


async def test_silence_excuses_nothing_and_a_refusal_does_for_a_while(place: Place) -> None:
    told, due_s = await beaten(place, Unavailable("silent for 5 s"))
    assert (told.events, due_s) == ([], 4.0)
    told, due_s = await beaten(place, Refused("connection refused"))
    assert told.events == []
    assert due_s > clock.monotonic_s() + RESTART_S - 1


@pytest.mark.parametrize("late", [False, True])
async def test_after_a_late_answer_the_next_heartbeat_is_due_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, late: bool
) -> None:
    await beaten(place, 0)
    monkeypatch.setattr(heartbeat, "BEAT_S", 60.0)
    place.upkeep._runner.changed = asyncio.Event()
    sent, passed_s = asyncio.Queue[int](), 0.0
    real_s = clock.monotonic_s
    monkeypatch.setattr(clock, "monotonic_s", lambda: real_s() + passed_s)

    async def send(_: object) -> int:
        nonlocal passed_s
        passed_s += 61 if late and not passed_s else 0
        sent.put_nowait(1)
        return 0

    place.upkeep._world.outbox.send = send  # type: ignore[assignment]
    beating = asyncio.create_task(place.upkeep.beat())
    await sent.get()
    if late:
        await asyncio.wait_for(sent.get(), 10)
    await asyncio.sleep(0.3)
    assert sent.empty()
    beating.cancel()


async def test_a_runner_whose_excuse_has_ended_notices_that_it_is_cut_off(place: Place) -> None:
    told, _ = await beaten(place, Unavailable("silent for 5 s"))
    outbox = place.upkeep._world.outbox
    outbox.left_s = clock.monotonic_s()
    watching = asyncio.create_task(place.upkeep.watch_contact())
    await asyncio.sleep(0)
    outbox.left_s = None

    async def is_told() -> bool:
        return told.events[:1] == [state.ContactChanged(cut=True)]

    await eventually(is_told, 5)
    watching.cancel()
