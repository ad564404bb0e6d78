"""What does the thumbnail function make of a picture, and of what is none?"""

import io
import json
from http import HTTPStatus
from typing import Any

import pytest
from PIL import Image

from examples.thumbnail import func

RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture(
    size: func.Size = (400, 200), kind: str = "PNG", mode: str = "RGB", **options: Any
) -> bytes:
    """Return a picture whose left half is red and whose right half is blue."""
    width, height = size
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    written = io.BytesIO()
    image.convert(mode).save(written, kind, **options)
    return written.getvalue()


def small(image: bytes, size: func.Size = (100, 100)) -> Image.Image:
    return Image.open(io.BytesIO(func.thumbnail(image, size)[0]))


def is_red(image: Image.Image, x: int, y: int) -> bool:
    red, _, blue = image.convert("RGB").crop((x, y, x + 1, y + 1)).tobytes()
    return red > 200 and blue < 50


@pytest.mark.parametrize(
    ("text", "size"), [("200x100", (200, 100)), ("64", (64, 64)), ("1x2048", (1, 2048))]
)
def test_sizes(text: str, size: func.Size) -> None:
    assert func.parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "1x", "x1", "1x0", "2049", "1x2049", "99999", "1.5", "1 x 1", "٣", "1\n"],
)
def test_bad_sizes_are_named(text: str) -> None:
    with pytest.raises(func.BadSize, match="WIDTHxHEIGHT"):
        func.parse_size(text)


@pytest.mark.parametrize(
    ("headers", "size"),
    [
        ({}, (128, 128)),
        ({"Thumbnail_size": "32"}, (32, 32)),
        ({"Thumbnail_size": "32", "Header_thumbnail_size": "8x9"}, (8, 9)),
        ({"Header_thumbnail_size": "8x9", "Request_url": "http://a/r/a/b?size=7x6&x"}, (7, 6)),
        ({"Request_url": "http://a/r/a/b"}, (128, 128)),
    ],
)
def test_the_query_wins_over_the_header_over_the_config(
    headers: dict[str, str], size: func.Size
) -> None:
    assert func.wanted_size(headers) == size


def test_an_empty_size_is_no_size() -> None:
    with pytest.raises(func.BadSize):
        func.wanted_size({"Request_url": "http://a/r/a/b?size="})


@pytest.mark.parametrize(
    ("kind", "mode", "made"),
    [
        ("JPEG", "RGB", "JPEG"),
        ("JPEG", "L", "JPEG"),
        ("JPEG", "CMYK", "JPEG"),
        ("PNG", "RGB", "PNG"),
        ("PNG", "RGBA", "PNG"),
        ("PNG", "P", "PNG"),
        ("PNG", "1", "PNG"),
        ("PNG", "LA", "PNG"),
        ("GIF", "P", "PNG"),
        ("WEBP", "RGB", "PNG"),
        ("WEBP", "RGBA", "PNG"),
    ],
)
def test_pictures_of_each_kind_get_small(kind: str, mode: str, made: str) -> None:
    image, content_type = func.thumbnail(picture(kind=kind, mode=mode), (100, 100))
    opened = Image.open(io.BytesIO(image))
    assert (opened.format, opened.size) == (made, (100, 50))
    assert content_type == f"image/{made.lower()}"
    if mode not in ("L", "LA", "1"):
        assert is_red(opened, 10, 25)
        assert not is_red(opened, 90, 25)


def test_a_picture_never_gets_larger() -> None:
    assert small(picture((40, 20))).size == (40, 20)


def test_what_is_transparent_stays_so() -> None:
    image = Image.new("RGBA", (200, 200), (0, 0, 0, 0))
    written = io.BytesIO()
    image.save(written, "PNG")
    assert small(written.getvalue()).getchannel("A").getpixel((50, 50)) == 0


def test_sixteen_bits_of_grey_become_eight() -> None:
    written = io.BytesIO()
    Image.new("I;16", (200, 200), 0x8000).save(written, "PNG")
    assert small(written.getvalue()).convert("L").getpixel((50, 50)) == 0x80


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("orientation", "size", "red"), [(1, (100, 50), (10, 25)), (6, (50, 100), (25, 10))]
)
def test_a_picture_comes_out_upright(
    kind: str, orientation: int, size: func.Size, red: func.Size
) -> None:
    exif = Image.Exif()
    exif[func.ORIENTATION] = orientation
    made = small(picture(kind=kind, exif=exif))
    assert made.size == size
    assert is_red(made, *red)
    assert not is_red(made, size[0] - red[0] - 1, size[1] - red[1] - 1)
    assert func.ORIENTATION not in made.getexif()


def test_where_it_was_taken_is_left_out() -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    assert not small(picture(kind="JPEG", exif=exif)).getexif()


@pytest.mark.parametrize(
    ("image", "status", "said"),
    [
        (b"", 400, "no body"),
        (b"hello", 415, "no image of these formats: JPEG, PNG, GIF, WEBP"),
        (picture(kind="BMP"), 415, "no image of these formats"),
        (picture()[:100], 400, "damaged"),
        (picture(kind="JPEG")[:800], 400, "damaged"),
        (picture((6000, 5000)), 413, "6000x5000 pixels; at most 24000000"),
    ],
    ids=["empty", "text", "other", "cut", "cut JPEG", "large"],
)
def test_what_is_no_good_picture_is_explained(image: bytes, status: int, said: str) -> None:
    head, _, body = func.answer({}, image).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode())
    assert b"Content-Type: application/json" in head
    assert said in json.loads(body)["error"]["message"]


def test_any_damage_is_answered() -> None:
    """Whatever byte is another one, the function answers and lives on."""
    whole = picture((20, 10), kind="PNG")
    for place in range(len(whole)):
        damaged = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        status = int(func.answer({}, damaged).split(b" ")[1])
        assert status in (200, 400, 413, 415)


def test_a_size_that_is_none_is_explained() -> None:
    said = func.answer({"Header_thumbnail_size": "huge"}, picture())
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"'huge'" in said
