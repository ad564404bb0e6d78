"""Does the thumbnail example take a picture and answer a smaller one, through the platform?"""

import asyncio
import io

import pytest
from PIL import Image

from tests.e2e.client import Answer, Client
from tests.e2e.platforms import Platform
from tests.e2e.workshop import EXAMPLES, Workshop

PHOTO = (EXAMPLES / "thumbnail" / "photo.jpg").read_bytes()
ROUTE = {"format": "http", "memory": 384, "max_concurrency": 2}


@pytest.fixture(scope="module")
def image(workshop: Workshop) -> str:
    """The example's image."""
    return workshop.build("thumbnail")


def size(answer: Answer) -> tuple[int, int]:
    """Return the size of the picture that was answered."""
    assert answer.status == 200, answer.text
    return Image.open(io.BytesIO(answer.body)).size


def png(width: int, height: int, mode: str = "RGBA") -> bytes:
    """Return a PNG of a size."""
    written = io.BytesIO()
    options = {"transparency": 0} if mode == "P" else {}
    Image.new(mode, (width, height)).save(written, "PNG", **options)
    return written.getvalue()


async def test_sizes_by_query_header_config_and_default(
    client: Client, app: str, image: str
) -> None:
    path = await client.deploy(app, "/plain", image, **ROUTE)
    configured = await client.deploy(app, "/set", image, **ROUTE, config={"THUMBNAIL_SIZE": "20"})
    header = {"Thumbnail-Size": "40"}
    assert size(await client.post(path, data=PHOTO)) == (128, 96)
    assert size(await client.post(f"{path}?size=80x30", data=PHOTO)) == (40, 30)
    assert size(await client.post(path, data=PHOTO, headers=header)) == (40, 30)
    assert size(await client.post(f"{path}?size=80", data=PHOTO, headers=header)) == (80, 60)
    assert size(await client.post(configured, data=PHOTO)) == (20, 15)
    assert size(await client.ask("PUT", configured, data=PHOTO)) == (20, 15)


async def test_types_of_pictures(client: Client, app: str, image: str) -> None:
    path = await client.deploy(app, "/small", image, **ROUTE)
    jpeg = await client.post(path, data=PHOTO)
    other = await client.post(path, data=png(300, 600))
    assert jpeg.headers["Content-Type"] == "image/jpeg"
    assert other.headers["Content-Type"] == "image/png"
    assert size(other) == (64, 128)


async def test_what_is_no_good_picture_is_explained_and_the_next_call_is_served(
    client: Client, app: str, image: str
) -> None:
    path = await client.deploy(app, "/small", image, **ROUTE)
    for body, status, said in (
        (b"hello", 415, "no image of these formats"),
        (b"", 400, "no body"),
        (PHOTO[:1000], 400, "damaged"),
        (png(5000, 5001), 413, "5000x5001 pixels"),
    ):
        answer = await client.post(path, data=body)
        assert (answer.status, said in answer.message) == (status, True), answer.text
        assert size(await client.post(path, data=PHOTO)) == (128, 96)
    assert (await client.post(f"{path}?size=0", data=PHOTO)).status == 400


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "I;16"])
async def test_the_largest_pictures_fit_into_the_memory(
    client: Client, app: str, image: str, mode: str
) -> None:
    path = await client.deploy(app, "/small", image, **ROUTE)
    assert size(await client.post(path, data=png(6000, 4000, mode))) == (128, 85)


async def test_many_at_a_time_each_get_their_own(client: Client, app: str, image: str) -> None:
    path = await client.deploy(app, "/small", image, **ROUTE)
    sides = range(20, 60)
    answers = await asyncio.gather(
        *(client.post(f"{path}?size={side}", data=png(100, 100)) for side in sides)
    )
    assert [size(answer) for answer in answers] == [(side, side) for side in sides]


async def test_the_readme(platform: Platform, client: Client, workshop: Workshop) -> None:
    await workshop.follow("thumbnail", platform.url, {})
    assert (await client.delete("/v1/apps/demo/routes/thumbnail")).status == 200
