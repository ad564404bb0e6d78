"""What is written to the connection for a whole answer?"""

from typing import Any

import pytest
from aiohttp import HttpVersion10, web
from aiohttp.test_utils import make_mocked_request

from services.api import sending
from services.api.answers import Answer, Header

Written = list[bytes]


class Writer:
    """A connection that keeps what is written to it."""

    def __init__(self) -> None:
        self.written: Written = []

    async def write_eof(self, data: bytes = b"") -> None:
        self.written.append(data)


def a_request(method: str = "POST", **fields: Any) -> web.Request:
    return make_mocked_request(method, "/r/a/b", **fields)


async def sent(*headers: Header, status: int = 200, body: bytes = b"body") -> tuple[str, bytes]:
    """Return the head and the body that a usual request gets."""
    writer = Writer()
    request = a_request(writer=writer)
    response = sending.whole(request, Answer(status, headers, body))
    await response.prepare(request)
    await response.write_eof()
    await response.write_eof()  # as the server may do once more
    [data] = writer.written
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.decode(), rest


async def test_an_answer_is_one_write_of_head_and_body() -> None:
    head, body = await sent(("Content-Type", "text/plain"), ("X-A", "é"))
    status, *lines = head.split("\r\n")
    assert status == "HTTP/1.1 200 OK"
    assert lines[:2] == ["Content-Type: text/plain", "X-A: é"]
    assert [line.partition(":")[0] for line in lines[2:]] == ["Date", "Server", "Content-Length"]
    assert lines[2].endswith(" GMT")
    assert lines[-1] == "Content-Length: 4"
    assert body == b"body"


@pytest.mark.parametrize("name", ["Date", "date", "SERVER"])
async def test_what_the_function_says_of_date_and_server_stands(name: str) -> None:
    head, _ = await sent((name, "its own"))
    said = [line for line in head.split("\r\n") if line.lower().startswith(f"{name.lower()}:")]
    assert said == [f"{name}: its own"]


async def test_a_status_without_a_name_has_none() -> None:
    head, body = await sent(status=599, body=b"")
    assert head.startswith("HTTP/1.1 599 \r\n")
    assert head.endswith("Content-Length: 0")
    assert not body


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (a_request("HEAD"), 200),
        (a_request(version=HttpVersion10), 200),
        (a_request(closing=True), 200),
        (a_request(), 204),
        (a_request(), 304),
    ],
)
def test_what_is_unusual_is_left_to_the_server(request_: web.Request, status: int) -> None:
    response = sending.whole(request_, Answer(status, [("X-A", "1"), ("X-A", "2")], b""))
    assert isinstance(response, web.Response)
    assert response.headers.getall("X-A") == ["1", "2"]
    assert response.status == status


def test_a_usual_connection_goes_on() -> None:
    response = sending.whole(a_request(), Answer(201, [], b""))
    assert response.keep_alive
    assert response.status == 201
