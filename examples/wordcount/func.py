"""Which words does a text have, and how often? The counts come while the text is read.

A hot function of format `http` whose answer is chunked, so that each part of it reaches the caller
at once. It reads the text piece by piece, from the request's body or, with `?from=ADDRESS`, from
there, and says after each piece what it has counted so far: a line of JSON

    {"words": 1052, "distinct": 411, "most": {"the": 61, "and": 40, "of": 37}}

The last line has `"done": true` too; if the text breaks off, it has `"error"` instead.
"""

# ruff: noqa: INP001 (a function's folder is what goes into its image, not a package)

import codecs
import http.client
import json
import re
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http.client import parse_headers
from typing import BinaryIO
from urllib.parse import parse_qs, urlsplit

#: How much of the text is counted at a time, in bytes, if so much is there.
PIECE_BYTES = 16384
#: How long the address of a text may keep silent, in seconds.
SOURCE_TIMEOUT_S = 20.0
#: How many words the counts name.
MOST = 10
#: A longer run of letters is no word; it is counted in parts of this many characters.
LONGEST_WORD = 1000
#: Letters and digits of any script, with what joins them: don't, well-known.
WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
WORD_CHARACTER = re.compile(r"[^\W_]|['\u2019-]")


class Problem(Exception):
    """The text cannot be read: the caller's address is no good, or nothing comes from it."""


@dataclass
class Counts:
    """The words of a text that comes in pieces; a word may be cut between two of them."""

    words: Counter[str] = field(default_factory=Counter)
    total: int = 0
    #: The end of what has come so far, which may be the beginning of a word.
    rest: str = ""

    def add(self, piece: str) -> None:
        """Count the next piece of the text."""
        text = self.rest + piece
        end = len(text)
        while end and len(text) - end < LONGEST_WORD and WORD_CHARACTER.match(text[end - 1]):
            end -= 1
        if len(text) - end >= LONGEST_WORD:
            end = len(text)
        self._count(text[:end])
        self.rest = text[end:]

    def finish(self) -> None:
        """Count what was left, now that no more comes."""
        self._count(self.rest)
        self.rest = ""

    def _count(self, text: str) -> None:
        found = [word.casefold() for word in WORD.findall(text)]
        self.words.update(found)
        self.total += len(found)

    def told(self) -> dict[str, object]:
        """Return the counts as they are now."""
        most = dict(self.words.most_common(MOST))
        return {"words": self.total, "distinct": len(self.words), "most": most}


def reports(pieces: Iterator[bytes]) -> Iterator[dict[str, object]]:
    """Return the counts after each piece of a UTF-8 text, and at its end.

    >>> [r["words"] for r in reports(iter([b"one tw", b"o three"]))]
    [1, 2, 3]
    """
    counts, decoder = Counts(), codecs.getincrementaldecoder("utf-8")("replace")
    try:
        for piece in pieces:
            counts.add(decoder.decode(piece))
            yield counts.told()
    except Problem as problem:
        yield counts.told() | {"error": str(problem)}
        return
    counts.add(decoder.decode(b"", final=True))
    counts.finish()
    yield counts.told() | {"done": True}


def body_pieces(stdin: BinaryIO, length: int) -> Iterator[bytes]:
    """Return a call's body, piece by piece."""
    while length:
        piece = stdin.read(min(length, PIECE_BYTES))
        length -= len(piece)
        yield piece


def asked_address(headers: Mapping[str, str]) -> str | None:
    """Return where the call says that the text is, if it does."""
    query = parse_qs(urlsplit(headers.get("Request_url", "")).query, keep_blank_values=True)
    return query["from"][0] if "from" in query else None


def fetched_pieces(address: str) -> Iterator[bytes]:
    """Return what an address answers, each piece as soon as it comes."""
    if not address.startswith(("http://", "https://")):
        raise Problem(f"from={address} is no address like http://example.org/text")
    try:
        with closing(urllib.request.urlopen(address, timeout=SOURCE_TIMEOUT_S)) as source:  # noqa: S310 (which scheme is seen to above)
            while piece := source.read1(PIECE_BYTES):
                yield piece
            if source.length:
                raise Problem(f"{address} breaks off {source.length} bytes before its end")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Problem(f"cannot read {address}: {error}") from None


def text_of(stdin: BinaryIO) -> Iterator[bytes] | None:
    """Return the text of the next call in pieces, or None if there is no next call."""
    if not stdin.readline():
        return None
    headers = dict(parse_headers(stdin).items())
    body = body_pieces(stdin, int(headers["Content-Length"]))
    address = asked_address(headers)
    if address is None:
        return body
    for _ in body:
        pass
    return fetched_pieces(address)


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked answer; an empty one ends it."""
    return b"%x\r\n%s\r\n" % (len(data), data)


HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def main() -> None:
    """Serve call after call, until standard input ends."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    while (pieces := text_of(stdin)) is not None:
        stdout.write(HEAD)
        for report in reports(pieces):
            line = json.dumps(report, ensure_ascii=False).encode() + b"\n"
            stdout.write(chunk(line))
            stdout.flush()
        stdout.write(chunk(b""))
        stdout.flush()


if __name__ == "__main__":
    main()
