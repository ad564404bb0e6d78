"""Does the etcd example read requests and addresses as its README says? No etcd needed here."""

import base64
import json
from typing import Any

import pytest

from examples.etcd_v3 import func


class OneKeyEtcd:
    """Answers like a gateway whose only key has this value; remembers what it was asked."""

    def __init__(self, value: bytes | None) -> None:
        self.value = value
        self.asked: list[tuple[str, dict[str, str]]] = []

    def ask(self, path: str, message: dict[str, str]) -> dict[str, Any]:
        self.asked.append((path, message))
        if path == "/v3/kv/put" or self.value is None:
            return {"header": {}}
        kv = {"key": message["key"], "value": base64.b64encode(self.value).decode()}
        return {"header": {}, "kvs": [kv], "count": "1"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1:2379", [("10.0.0.1", 2379, False)]),
        ("http://10.0.0.1:2380", [("10.0.0.1", 2380, False)]),
        ("http://10.0.0.1:2379/", [("10.0.0.1", 2379, False)]),
        ("https://etcd.example:443", [("etcd.example", 443, True)]),
        ("etcd", [("etcd", 2379, False)]),
        ("[::1]:2379", [("::1", 2379, False)]),
        (" a:1 , http://b:2,", [("a", 1, False), ("b", 2, False)]),
    ],
)
def test_server_spellings(text: str, expected: list[tuple[str, int, bool]]) -> None:
    assert [(s.host, s.port, s.tls) for s in func.parse_servers(text)] == expected


@pytest.mark.parametrize("text", ["", " , ", "ftp://a:1", "a:port", "a:99999", "http://"])
def test_bad_servers_are_named(text: str) -> None:
    with pytest.raises(func.BadServer, match="ETCD_SERVER"):
        func.parse_servers(text)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"hello", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"{}", '"method" is null'),
        (b'{"method": "delete", "key": "/a"}', '"method" is "delete"'),
        (b'{"method": ["put"], "key": "/a"}', '"method" is'),
        (b'{"method": "get"}', '"key" is missing'),
        (b'{"method": "get", "key": 1}', '"key" is missing or not a string'),
        (b'{"method": "get", "key": ""}', '"key" is empty'),
        (b'{"method": "put", "key": "/a"}', '"value" is missing'),
    ],
)
def test_bad_requests_are_explained(raw: bytes, said: str) -> None:
    with pytest.raises(func.BadRequest, match=said):
        func.parse_request(raw)


def test_put() -> None:
    etcd = OneKeyEtcd(None)
    request = func.parse_request(b'{"method": "put","key":"/hello","value":"hello word"}')
    assert func.perform(request, etcd.ask) == b"Put /hello success."
    [(path, message)] = etcd.asked
    assert path == "/v3/kv/put"
    assert base64.b64decode(message["value"]) == b"hello word"


def test_get() -> None:
    request = func.parse_request(b'{"method": "get","key":"/hello"}')
    answer = func.perform(request, OneKeyEtcd(b"hello word").ask)
    assert answer == b"/hello : hello word"


def test_values_that_are_not_text_go_through() -> None:
    request = func.parse_request(b'{"method": "get","key":"/bin"}')
    assert func.perform(request, OneKeyEtcd(b"\xff\x00").ask) == b"/bin : \xff\x00"


def test_keys_of_any_script() -> None:
    etcd = OneKeyEtcd(b"")
    raw = json.dumps({"method": "get", "key": "/你好"}).encode()
    assert func.perform(func.parse_request(raw), etcd.ask) == "/你好 : ".encode()
    assert base64.b64decode(etcd.asked[0][1]["key"]).decode() == "/你好"


def test_an_unknown_key_is_its_own_problem() -> None:
    request = func.parse_request(b'{"method": "get","key":"/none"}')
    with pytest.raises(func.NoSuchKey, match="/none : no such key"):
        func.perform(request, OneKeyEtcd(None).ask)
