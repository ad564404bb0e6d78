"""Does the Twitter function sign as RFC 5849 says, and read what it is told? No Twitter here."""

import json
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.twitter import func
from tests.e2e import oauth1

NOW_S = 1_700_000_000
KEYS = func.Keys("customer", "customer's secret", "token", "token & secret")
CONFIG = dict.fromkeys(func.KEYS, "set")


def verifier(keys: func.Keys = KEYS) -> oauth1.Verifier:
    return oauth1.Verifier(
        {keys.customer_key: keys.customer_secret}, {keys.access_token: keys.access_secret}
    )


def signed(
    address: str = "http://API.example:8080/1.1/x.json",
    keys: func.Keys = KEYS,
    nonce: str = "n",
    **query: str,
) -> oauth1.Request:
    """Return a request as it goes over the wire."""
    url = urlsplit(address)
    said = func.authorization(url, query.items(), keys, nonce, NOW_S)
    target = url.path + "?" + "&".join(f"{n}={quote(v, safe='')}" for n, v in query.items())
    return oauth1.Request("GET", url.scheme, url.netloc, target, said)


def test_the_example_of_the_specification() -> None:
    """RFC 5849, section 1.2."""
    keys = func.Keys("dpf43f3p2l4k3l03", "kd94hf93k423kf44", "nnch734d00sl2jdk", "pfkkdhi9sl3r4s00")
    parameters = [
        ("oauth_consumer_key", keys.customer_key),
        ("oauth_token", keys.access_token),
        ("oauth_signature_method", "HMAC-SHA1"),
        ("oauth_timestamp", "137131202"),
        ("oauth_nonce", "chapoH"),
        ("file", "vacation.jpg"),
        ("size", "original"),
    ]
    text = func.base_string("get", urlsplit("http://photos.example.net/photos"), parameters)
    assert func.signature(text, keys) == "MdpQcU8iPSUjWoN/UDMsK2sui9I="


def test_the_base_string_of_the_specification() -> None:
    """RFC 5849, section 3.4.1.1, with its odd names, values and repetitions."""
    parameters = [
        ("b5", "=%3D"),
        ("a3", "a"),
        ("c@", ""),
        ("a2", "r b"),
        ("oauth_consumer_key", "9djdj82h48djs9d2"),
        ("oauth_token", "kkk9d7dh3k39sjv7"),
        ("oauth_signature_method", "HMAC-SHA1"),
        ("oauth_timestamp", "137131201"),
        ("oauth_nonce", "7d8f3e4a"),
        ("c2", ""),
        ("a3", "2 q"),
    ]
    expected = (
        "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D%25"
        "253D%26c%2540%3D%26c2%3D%26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26"
        "oauth_signature_method%3DHMAC-SHA1%26oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k3"
        "9sjv7"
    )
    assert func.base_string("POST", urlsplit("http://example.com/request"), parameters) == expected


@pytest.mark.parametrize(
    ("address", "uri"),
    [
        ("http://EXAMPLE.COM:80/r%20v/X?id=123", "http://example.com/r%20v/X"),
        ("https://www.example.net:8080/?q=1", "https://www.example.net:8080/"),
        ("https://www.example.net:443", "https://www.example.net/"),
        ("http://[::1]:80/a", "http://[::1]/a"),
    ],
)
def test_base_uris(address: str, uri: str) -> None:
    assert func.base_uri(urlsplit(address)) == uri


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_name_and_secret_pass_a_server_that_checks(name: str, secret: str) -> None:
    keys = func.Keys("customer", secret, "token", secret[::-1])
    verifier(keys).check(signed(keys=keys, screen_name=name), NOW_S)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"target": "/1.1/x.json?screen_name=eve"}, "signature"),
        ({"target": "/1.1/y.json?screen_name=jack"}, "signature"),
        ({"method": "POST"}, "signature"),
        ({"host": "api.example"}, "signature"),
        ({"authorization": "Bearer token"}, "no OAuth"),
    ],
)
def test_the_server_refuses_what_was_changed(change: dict[str, str], why: str) -> None:
    request = signed(screen_name="jack")
    changed = oauth1.Request(
        **{name: change.get(name, getattr(request, name)) for name in request.__dataclass_fields__}
    )
    with pytest.raises(oauth1.Refused, match=why):
        verifier().check(changed, NOW_S)


def test_the_server_refuses_other_secrets_old_requests_and_repetitions() -> None:
    other = func.Keys("customer", "another secret", "token", "token & secret")
    server, request = verifier(), signed(screen_name="jack")
    with pytest.raises(oauth1.Refused, match="signature"):
        server.check(signed(keys=other, screen_name="jack"), NOW_S)
    with pytest.raises(oauth1.Refused, match="timestamp"):
        server.check(request, NOW_S + oauth1.SKEW_S + 1)
    server.check(request, NOW_S)
    with pytest.raises(oauth1.Refused, match="nonce"):
        server.check(request, NOW_S)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b'{"username": "jack"}', "jack"),
        (b'{"username": " @jack\\n"}', "jack"),
        ('{"username": "日本"}'.encode(), "日本"),
    ],
)
def test_names(raw: bytes, name: str) -> None:
    assert func.parse_username(raw) == name


@pytest.mark.parametrize(
    "raw", [b"", b"jack", b"[]", b"{}", b'{"username": 1}', b'{"username": "@"}', b"\xff"]
)
def test_bad_requests_are_explained(raw: bytes) -> None:
    with pytest.raises(func.BadRequest, match=r'\{"username": "jack"\}'):
        func.parse_username(raw)


@pytest.mark.parametrize("name", func.KEYS)
@pytest.mark.parametrize(
    ("value", "said"), [("", "is not set"), ("XXXXXX", "is still the placeholder XXXXXX")]
)
def test_keys_that_are_none_get_the_guides_hint(name: str, value: str, said: str) -> None:
    with pytest.raises(func.BadConfig, match=rf"^{name} {said}: .*apps\.twitter\.com"):
        func.read_keys(CONFIG | {name: value})


@pytest.mark.parametrize(
    "text", ["twitter", "ftp://a/", "http://", "http://a:b/", "http://a/?x=1", "http://u:p@a/"]
)
def test_bad_addresses_are_named(text: str) -> None:
    with pytest.raises(func.BadConfig, match="TWITTER_API_URL"):
        func.parse_api(text)


def test_a_tweet_is_one_line() -> None:
    tweet = {"user": {"name": "Ada L."}, "full_text": "one\n\ntwo &amp; &lt;three&gt;", "text": "o"}
    assert func.line(tweet) == "Ada L.: one two & <three>"


@pytest.mark.parametrize(
    "tweet", [{}, {"text": "a"}, {"user": {"name": "a"}}, None, {"user": None}]
)
def test_a_tweet_without_author_or_text_is_the_apis_fault(tweet: dict[str, object]) -> None:
    with pytest.raises(func.BadServer):
        func.line(tweet)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, func.BadConfig),
        (403, func.BadConfig),
        (404, func.NoSuchAccount),
        (429, func.BadServer),
        (503, func.BadServer),
    ],
)
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (json.dumps({"errors": [{"code": 1, "message": "So it is."}]}).encode(), "So it is."),
        (b"<html>", "<html>"),
        (b"[]", r"\[\]"),
        (b"", "without a reason"),
    ],
)
def test_refusals_are_passed_on(
    status: int, kind: type[func.Problem], body: bytes, said: str
) -> None:
    problem = func._refusal(status, body, "jack")
    assert type(problem) is kind
    with pytest.raises(kind, match=f"{status}, {said}"):
        raise problem
