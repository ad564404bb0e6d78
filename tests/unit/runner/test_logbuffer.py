from hypothesis import given
from hypothesis import strategies as st

from services.runner.logbuffer import LogBuffer


@given(st.lists(st.binary(max_size=40), max_size=60), st.integers(0, 64))
def test_beginning_and_end_are_kept_in_however_many_pieces(pieces: list[bytes], limit: int) -> None:
    buffer = LogBuffer(limit)
    for piece in pieces:
        buffer.write(piece)
    whole = b"".join(pieces)
    if len(whole) <= limit:
        assert buffer.text() == whole
    else:
        head, tail = limit // 2, limit - limit // 2
        mark = b"\n[... %d bytes cut ...]\n" % (len(whole) - limit)
        assert buffer.text() == whole[:head] + mark + whole[len(whole) - tail :]


def test_memory_stays_bounded() -> None:
    buffer = LogBuffer(1000)
    for _ in range(10_000):
        buffer.write(b"x" * 100)
    assert len(buffer._head) + len(buffer._tail) <= 5 * 1000
    assert b"[... 999000 bytes cut ...]" in buffer.text()
