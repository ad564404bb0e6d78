"""Every hot format can be had by its name, and all are used in one way."""

from typing import get_args

import pytest

from services.runner.framing import answer, formats
from shared import messages
from tests.unit.runner import builders
from tests.unit.runner.framing.reading import CALL_ID

HOT = [name for name in get_args(messages.Format) if name != "default"]
HELLO = {
    "http": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "json": b'{"body": "hello"}\n',
    "http-stream": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("name", HOT)
def test_every_hot_format_has_its_framing(name: messages.Format) -> None:
    framing = formats.of(name)
    parcel = messages.Parcel(call_env={}, config_env={}, payload=b"World")
    sent = framing.request(builders.head(call_id=CALL_ID, format=name), parcel, builders.NOW_MS)
    assert b"World" in sent
    assert CALL_ID.encode() in sent
    assert framing.environment("a", "/p", 128)["FN_FORMAT"] == name
    assert (framing.listener is None) == (name != "http-stream")
    assert framing.parser(CALL_ID, 1000).feed(HELLO[name]) == [
        answer.Head(200, (), streamed=False),
        answer.Data(b"hello"),
        answer.End(reusable=True),
    ]


@pytest.mark.parametrize("name", HOT)
def test_no_parser_invents_an_answer(name: messages.Format) -> None:
    with pytest.raises(answer.BadAnswer, match="before it had answered"):
        formats.of(name).parser(CALL_ID, 1000).eof()


def test_what_must_be_kept_to_be_read_has_a_limit() -> None:
    with pytest.raises(answer.TooLarge):
        formats.of("json").parser(CALL_ID, 10).feed(HELLO["json"])


def test_the_format_default_has_none() -> None:
    with pytest.raises(KeyError):
        formats.of("default")
