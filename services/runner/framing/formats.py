"""Which framing does a hot format have? The table of them, for who runs the processes."""

from collections.abc import Callable
from dataclasses import dataclass

from services.runner.framing import answer, fdk, http1, jsonlines
from shared import messages


@dataclass(frozen=True, slots=True)
class Framing:
    """How a format's calls and answers look."""

    #: (head, parcel, deadline in epoch milliseconds) -> what the process is to read.
    request: Callable[[messages.CallHead, messages.Parcel, int], bytes]
    #: (call id, most bytes that are kept until an answer can be read) -> a parser for one answer.
    parser: Callable[[str, int], answer.Parser]
    #: (app, path, memory in MB) -> the process's variables at its start; they win over config.
    environment: Callable[[str, str, int], dict[str, str]]
    #: The socket, in the sandbox, on which the process listens; None: standard input and output.
    listener: str | None = None


_FRAMINGS = {
    "http": Framing(
        request=http1.request,
        parser=lambda call_id, _: http1.Parser(call_id),
        environment=lambda *_: {"FN_FORMAT": "http"},
    ),
    "json": Framing(
        request=jsonlines.request,
        parser=jsonlines.Parser,
        environment=lambda *_: {"FN_FORMAT": "json"},
    ),
    "http-stream": Framing(
        request=fdk.request,
        parser=lambda call_id, _: fdk.Parser(call_id),
        environment=fdk.environment,
        listener=fdk.LISTENER,
    ),
}


def of(name: messages.Format) -> Framing:
    """Return the framing of a hot format. Raises KeyError for `default`, which has none."""
    return _FRAMINGS[name]
