"""What do the bytes of a sandbox's first process mean? Tested like a parser."""

import errno
import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runner import protocol
from services.runner.protocol import BadFrame, Connected, Ended, Frame, Frames, Hello

MAGIC, START, CONNECT, HELLO, ENDED, CONNECTED = 0x314C494D, 1, 2, 16, 17, 18
U32 = st.integers(0, 2**32 - 1)
I32 = st.integers(-(2**31), 2**31 - 1)
FRAMES = st.one_of(
    st.builds(Hello, U32),
    st.builds(Connected, U32),
    st.builds(Ended, I32, I32, U32, st.integers(0, 2**64 - 1), st.booleans()),
)


def fixed(kind: int, length: int = 0, value: int = 0, magic: int = MAGIC) -> bytes:
    return struct.pack("=IIII", magic, kind, length, value)


def encoded(frame: Frame) -> bytes:
    match frame:
        case Hello(version):
            return fixed(HELLO, value=version)
        case Connected(error):
            return fixed(CONNECTED, value=error)
        case Ended(error, status, oom_kills, peak_kib, changed):
            body = struct.pack("=iiIIQ", error, status, oom_kills, changed, peak_kib)
            return fixed(ENDED, len(body)) + body


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(at)]


@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(0, 1_000), max_size=10))
def test_frames_come_out_in_however_many_pieces_they_come_in(
    frames: list[Frame], cuts: list[int]
) -> None:
    parser = Frames()
    fed = [parser.feed(piece) for piece in pieces(b"".join(map(encoded, frames)), cuts)]
    assert [frame for some in fed for frame in some] == frames


@given(FRAMES)
def test_a_frame_comes_out_with_its_last_byte_and_not_before(frame: Frame) -> None:
    parser = Frames()
    *before, last = [bytes([byte]) for byte in encoded(frame)]
    assert [parser.feed(byte) for byte in before] == [[]] * len(before)
    assert parser.feed(last) == [frame]
    assert parser.feed(b"") == []


@pytest.mark.parametrize(
    "data",
    [
        fixed(HELLO, magic=MAGIC + 1),
        fixed(HELLO, magic=0),
        b"HTTP/1.1 200 OK\r\n",
        fixed(HELLO, length=1),
        fixed(CONNECTED, length=2**32 - 1),
        fixed(ENDED),
        fixed(ENDED, length=23),
        fixed(ENDED, length=25),
        fixed(ENDED, length=2**32 - 1),
        fixed(0),
        fixed(START),
        fixed(CONNECT),
        fixed(19),
        fixed(START, length=5) + b"A=1\0\0",
        encoded(Hello(1)) + b"\0" * 16,
    ],
)
def test_what_is_no_frame_is_told_by_its_fixed_part(data: bytes) -> None:
    with pytest.raises(BadFrame):
        Frames().feed(data)


@given(st.binary(max_size=80), st.lists(st.integers(0, 100), max_size=5))
def test_garbage_is_a_bad_frame_or_nothing_yet(data: bytes, cuts: list[int]) -> None:
    parser = Frames()
    try:
        frames = [frame for piece in pieces(data, cuts) for frame in parser.feed(piece)]
    except BadFrame:
        return
    whole = b"".join(map(encoded, frames))
    rest = len(data) - len(whole)
    assert 0 <= rest < len(encoded(Ended(0, 0, 0, 0)))


def test_no_more_is_kept_than_one_frame_may_have() -> None:
    parser = Frames()
    for byte in encoded(Ended(0, 0, 0, 0))[:-1]:
        parser.feed(bytes([byte]))
    assert len(parser._buffer) == 39


def test_what_is_sent_to_the_first_process() -> None:
    block = protocol.environment_block({"A": "1", "Ä": "ö=\n", "EMPTY": ""})
    assert block == "A=1\0Ä=ö=\n\0EMPTY=\0".encode()
    assert protocol.start(block) == fixed(START, len(block)) + block
    assert protocol.connect("/run/x") == fixed(CONNECT, 6) + b"/run/x"
    assert protocol.environment_block({}) == b""


def test_the_longest_environment_is_sent_and_a_longer_one_is_too_long() -> None:
    longest = b"x" * protocol.BODY_MAX_BYTES
    assert protocol.start(longest).endswith(longest)
    with pytest.raises(OSError, match="limit") as caught:
        protocol.start(longest + b"x")
    assert caught.value.errno == errno.E2BIG
