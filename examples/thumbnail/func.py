"""What does a picture look like, small? Takes an image, answers the image scaled down.

A hot function of format `http`: the process loads Pillow once and serves call after call. The
request's body is the image, `?size=200x100` the box it shall fit in (or the header
`Thumbnail-Size`, or the config `THUMBNAIL_SIZE`). What is wrong with a request is answered with a
status of 4xx and a message: see `Problem`.
"""

# ruff: noqa: INP001 (a function's folder is what goes into its image, not a package)

import io
import json
import re
import struct
import sys
import zlib
from collections.abc import Mapping
from http import HTTPStatus
from http.client import parse_headers
from urllib.parse import parse_qs, urlsplit

from PIL import Image, ImageOps, UnidentifiedImageError

DEFAULT_SIZE = "128x128"
#: The longest side that can be asked for, in pixels.
LONGEST_SIDE = 2048
#: The largest picture that is read, in pixels: three times four bytes of each have to fit into the
#: memory, as it is read, as it is with plain colours, and as it is scaled.
MOST_PIXELS = 24_000_000

#: What is read; Pillow knows more, and each format is one more way in for hostile bytes.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP")
CONTENT_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png"}
#: What Pillow raises when the bytes are not what they begin as.
DAMAGES = (OSError, SyntaxError, ValueError, EOFError, LookupError, struct.error, zlib.error)

#: EXIF's field of how the camera was held; from 5 on, width and height are exchanged.
ORIENTATION, FIRST_ON_ITS_SIDE = 0x0112, 5

Size = tuple[int, int]


class Problem(Exception):
    """Something the caller must be told; answered with `status`."""

    status = HTTPStatus.BAD_REQUEST


class BadSize(Problem):
    """The size is not like 200x100."""


class BadImage(Problem):
    """The image begins as one, but cannot be read to its end, or there is none."""


class NoImage(Problem):
    """The body is no image of the formats that are read."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class TooLarge(Problem):
    """The image has more pixels than the function's memory can hold."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


def parse_size(text: str) -> Size:
    """Return the width and height of a box, in pixels.

    >>> parse_size("200x100"), parse_size("64")
    ((200, 100), (64, 64))
    """
    found = re.fullmatch(r"([1-9][0-9]{0,3})(?:x([1-9][0-9]{0,3}))?", text, re.ASCII)
    size = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not found or max(size) > LONGEST_SIDE:
        raise BadSize(
            f"size {text!r} is neither WIDTHxHEIGHT nor SIDE, in pixels from 1 to {LONGEST_SIDE}"
        )
    return size


def wanted_size(headers: Mapping[str, str]) -> Size:
    """Return the size a call asks for: by its query, else its header, else the config's."""
    query = parse_qs(urlsplit(headers.get("Request_url", "")).query, keep_blank_values=True)
    asked = query.get("size", [headers.get("Header_thumbnail_size")])[0]
    return parse_size(headers.get("Thumbnail_size", DEFAULT_SIZE) if asked is None else asked)


def thumbnail(image: bytes, size: Size) -> tuple[bytes, str]:
    """Return an image that fits into a box, upright, and its content type; never scales up.

    A JPEG stays one; all else becomes a PNG, because that keeps what is transparent. Of a moving
    picture, the first frame is taken. What else stood in the file (place, camera) is left out.
    """
    if not image:
        raise BadImage("the request has no body; send the image as it is: --data-binary @photo.jpg")
    try:
        with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
            return _scale(opened, size)
    except UnidentifiedImageError:
        raise NoImage(f"the body is no image of these formats: {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError as error:
        raise TooLarge(str(error)) from None
    except DAMAGES as error:
        raise BadImage(f"the image is damaged: {error}") from None


def _scale(opened: Image.Image, size: Size) -> tuple[bytes, str]:
    width, height = opened.size
    if width * height > MOST_PIXELS:
        raise TooLarge(f"the image has {width}x{height} pixels; at most {MOST_PIXELS} are read")
    target = "JPEG" if opened.format == "JPEG" else "PNG"
    # A JPEG is turned when it is small, because its decoder can leave out what is not needed.
    on_its_side = opened.getexif().get(ORIENTATION, 1) >= FIRST_ON_ITS_SIDE
    if target == "JPEG":
        opened.draft("RGB", size)
    small = _with_plain_colours(opened, target)
    small.thumbnail(size[::-1] if on_its_side else size)
    upright = ImageOps.exif_transpose(small)
    written = io.BytesIO()
    upright.save(written, target)
    return written.getvalue(), CONTENT_TYPES[target]


def _with_plain_colours(image: Image.Image, target: str) -> Image.Image:
    """Return the image with colours that can be scaled and that the target can hold."""
    if image.mode.startswith("I"):
        return image.convert("I").point(lambda value: value / 256).convert("L")
    if target == "JPEG":
        return image if image.mode in {"L", "RGB"} else image.convert("RGB")
    transparent = "A" in image.mode or "transparency" in image.info
    plain = "RGBA" if transparent else "RGB"
    return image if image.mode == plain else image.convert(plain)


def answer(headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the HTTP response to one call."""
    try:
        small, content_type = thumbnail(body, wanted_size(headers))
    except Problem as problem:
        said = json.dumps({"error": {"message": str(problem)}}).encode() + b"\n"
        return response(problem.status, "application/json", said)
    return response(HTTPStatus.OK, content_type, small)


def response(status: HTTPStatus, content_type: str, body: bytes) -> bytes:
    """Return an HTTP response, as the platform reads it from standard output."""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def main() -> None:
    """Serve call after call, until standard input ends."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    while stdin.readline():
        headers = dict(parse_headers(stdin).items())
        body = stdin.read(int(headers["Content-Length"]))
        stdout.write(answer(headers, body))
        stdout.flush()


if __name__ == "__main__":
    main()
