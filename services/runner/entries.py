"""What does an entry of the runner's stream say? Pure: from its fields to an event."""

import msgspec

from services.runner.state import Assigned, CallerLeft
from shared import messages
from shared.errors import Undecodable
from shared.streams import Entry


class Taken(msgspec.Struct, frozen=True, gc=False):
    """An entry says how much its caller has taken of a streamed answer: nothing to decide."""

    entry_id: bytes
    more: messages.More


def decode(entry: Entry) -> Assigned | CallerLeft | Taken:
    """Return what an entry says; raises `Undecodable`."""
    entry_id, fields = entry
    kind = fields.get(b"k")
    if kind == b"cancel":
        cancel = messages.decode(fields.get(b"m"), messages.Cancel)
        return CallerLeft(entry_id, cancel.call_id)
    if kind == b"more":
        return Taken(entry_id, messages.decode(fields.get(b"m"), messages.More))
    if kind != b"assign":
        raise Undecodable(f"neither assign nor cancel nor more: {kind!r}")
    inline = fields.get(b"p")
    return Assigned(
        entry_id,
        messages.decode(fields.get(b"h"), messages.CallHead),
        messages.decode(fields.get(b"a"), messages.Assignment),
        messages.decode(inline, messages.Parcel) if inline is not None else None,
    )
