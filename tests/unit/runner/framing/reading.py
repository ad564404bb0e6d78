"""What does a parser say, whatever the pieces in which the bytes reach it?"""

from collections.abc import Iterable
from itertools import pairwise

from services.runner.framing import answer
from services.runner.framing.answer import Event

CALL_ID = "01a208ab-9a95-7299-b554-f5a8c61a5b76"


def read(parser: answer.Parser, pieces: Iterable[bytes], *, eof: bool = False) -> list[Event]:
    """Return all events of these pieces, neighbouring `Data` as one."""
    events = [event for piece in pieces for event in parser.feed(piece)]
    if eof:
        events += parser.eof()
    return merged(events)


def merged(events: list[Event]) -> list[Event]:
    result: list[Event] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, answer.Data) and isinstance(last, answer.Data):
            result[-1] = answer.Data(last.data + event.data)
        else:
            result.append(event)
    return result


def judged(parser: answer.Parser, pieces: Iterable[bytes], *, eof: bool = False) -> object:
    """Return the events, or `BadAnswer` if it was one."""
    try:
        return read(parser, pieces, eof=eof)
    except answer.BadAnswer:
        return answer.BadAnswer


def single_bytes(data: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in data]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Return `data` in pieces, cut at these places (modulo its length)."""
    bounds = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(bounds)]


def body_of(events: Iterable[Event]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, answer.Data))
