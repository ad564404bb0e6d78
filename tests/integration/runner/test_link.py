"""Does what the runner tells a sandbox's first process arrive, in order and with its files?

Real sockets; at the other end is a test, which reads when it wants to.
"""

import array
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.runner import protocol
from services.runner.link import Link, Listener
from tests.conftest import eventually
from tests.integration.runner.firstprocess import frame

_FIXED_BYTES, _LENGTH_AT = 16, slice(8, 12)
ENDED, CONNECTED = 17, 18
KIB = 1024


@dataclass
class Ends:
    """A link, its other end, and what it has told."""

    link: Link
    far: socket.socket
    frames: list[tuple[protocol.Frame, int | None]] = field(default_factory=list)
    lost: int = 0

    def note(self, told: protocol.Frame, fd: int | None) -> None:
        self.frames.append((told, fd))

    def note_lost(self) -> None:
        self.lost += 1

    async def receive(self) -> tuple[bytes, list[int]]:
        """Return the body of the next frame, and the files that came with it."""
        head, fds = await self._read(_FIXED_BYTES)
        body, more = await self._read(int.from_bytes(head[_LENGTH_AT], "little"))
        return body, fds + more

    async def _read(self, size: int) -> tuple[bytes, list[int]]:
        got, fds = bytearray(), array.array("i")

        async def whole() -> bool:
            try:
                data, found, _, _ = socket.recv_fds(self.far, size - len(got), 8)
            except BlockingIOError:
                return False
            got.extend(data)
            fds.extend(found)
            return len(got) == size

        if size:
            await eventually(whole)
        return bytes(got), list(fds)


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    near, far = socket.socketpair(socket.AF_UNIX)
    for end in (near, far):
        end.setblocking(False)
    made = Ends(Link(near), far)
    made.link.listen(made.note, made.note_lost)
    with far:
        yield made
    made.link.close()


@contextmanager
def files(count: int) -> Iterator[list[int]]:
    made = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(count)]
    yield made
    for fd in made:
        os.close(fd)


def opened() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_frames_that_do_not_fit_keep_their_order_and_their_files(ends: Ends) -> None:
    """The first is larger than the connection holds: those behind it wait for its rest."""
    before = opened()
    large = bytes(range(256)) * 3 * KIB
    with files(3) as three:
        ends.link.send(protocol.start(large), three)
        ends.link.send(protocol.connect("/one"))
        ends.link.send(protocol.start(b"A=1\0"), three)
        ends.link.send(protocol.connect("/two"))
    for body, count in ((large, 3), (b"/one", 0), (b"A=1\0", 3), (b"/two", 0)):
        got, fds = await ends.receive()
        assert (got, len(fds)) == (body, count)
        for fd in fds:
            os.close(fd)
    assert opened() == before


async def test_what_could_not_be_sent_is_let_go_of_when_it_is_closed(ends: Ends) -> None:
    before = opened()
    with files(3) as three:
        ends.link.send(protocol.start(bytes(700 * KIB)), three)
        ends.link.send(protocol.start(b""), three)
    ends.link.close()
    assert opened() == before - 1
    assert ends.lost == 0


async def test_the_other_side_is_gone_while_much_is_to_be_sent(ends: Ends) -> None:
    with files(3) as three:
        ends.link.send(protocol.start(bytes(700 * KIB)), three)
        ends.link.send(protocol.start(b""), three)
    ends.far.close()

    async def told() -> bool:
        return ends.lost == 1

    await eventually(told)
    assert not ends.link.open
    ends.link.send(protocol.connect("/x"))


async def test_frames_in_pieces_and_several_at_once(ends: Ends) -> None:
    data = frame(ENDED, bytes(24)) + frame(CONNECTED) + frame(ENDED, bytes(24))
    for at in range(40):
        ends.far.send(data[at : at + 1])
    ends.far.send(data[40:])

    async def all_three() -> bool:
        return len(ends.frames) == 3

    await eventually(all_three)
    ended = protocol.Ended(0, 0, 0, 0)
    assert [told for told, _ in ends.frames] == [ended, protocol.Connected(0), ended]


async def test_a_connection_comes_with_the_frame_that_says_so(ends: Ends) -> None:
    """Not with a refusal that is read together with it."""
    before = opened()
    refused = bytearray(frame(CONNECTED))
    refused[12] = 2
    ends.far.send(refused)
    with files(1) as one:
        socket.send_fds(ends.far, [frame(CONNECTED)], one)

    async def both() -> bool:
        return len(ends.frames) == 2

    await eventually(both)
    (first, none), (second, fd) = ends.frames
    assert (first, none, second) == (protocol.Connected(2), None, protocol.Connected(0))
    assert fd is not None
    os.close(fd)
    assert opened() == before


async def test_files_that_nobody_asked_for_are_closed(ends: Ends) -> None:
    before = opened()
    with files(2) as two:
        socket.send_fds(ends.far, [frame(ENDED, bytes(24))], two)

    async def told() -> bool:
        return len(ends.frames) == 1

    await eventually(told)
    assert (ends.frames[0][1], opened()) == (None, before)


@pytest.mark.parametrize("data", [bytes(16), b"x" * 16, frame(ENDED, bytes(23)), frame(99)])
async def test_what_is_no_frame_ends_the_link(ends: Ends, data: bytes) -> None:
    ends.far.send(data)

    async def told() -> bool:
        return ends.lost == 1

    await eventually(told)
    assert not ends.link.open
    assert ends.frames == []


async def test_who_comes_second_is_refused(short_folder: Path) -> None:
    listener = Listener(short_folder / "socket")
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        first.connect(str(short_folder / "socket"))
        link = await listener.accept()
        with pytest.raises(ConnectionRefusedError):
            second.connect(str(short_folder / "socket"))
        link.close()
        assert first.recv(1) == b""
