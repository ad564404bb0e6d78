"""Which tokens are good, and what is said of the others?"""

import base64
import json
import warnings

import jwt
import pytest

from services.api import tokens

NOW = 1_000_000.5


def signed(claims: object, key: str = "k", algorithm: str = "HS256") -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return jwt.PyJWS().encode(json.dumps(claims).encode(), key, algorithm=algorithm)


def unsigned() -> str:
    parts: tuple[dict[str, str], ...] = ({"alg": "none", "typ": "JWT"}, {})
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode() for p in parts) + "."


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("prefix", ["", "Bearer ", "bearer "])
def test_good_tokens(algorithm: str, prefix: str) -> None:
    claims = {"exp": NOW + 1, "iat": NOW - 1, "nbf": NOW - 60, "aud": "any", "sub": 5}
    tokens.verify(prefix + signed(claims, algorithm=algorithm), "k", NOW)
    tokens.verify(prefix + signed({}, algorithm=algorithm), "k", NOW)


@pytest.mark.parametrize(
    "key", ["-----BEGIN PUBLIC KEY-----", '{"kty": "oct"}', "ssh-rsa AAAA", "ü"]
)
def test_any_text_is_a_key(key: str) -> None:
    digest = tokens.ALGORITHMS["HS256"]
    head = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=") + b"." + b"e30"
    signature = jwt.algorithms.HMACAlgorithm(digest).sign(head, key.encode())
    token = head + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")
    tokens.verify(token.decode(), key, NOW)
    with pytest.raises(tokens.TokenRefused, match="signature is invalid"):
        tokens.verify(token.decode(), key + "x", NOW)


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (None, "no token present in request"),
        ("", "no token present in request"),
        ("Bearer ", "no token present in request"),
        ("a.b", "token contains an invalid number of segments"),
        ("a.b.c", "token is malformed"),
        ("Bearer \udcff.a.b", "token is malformed: it is no ASCII text"),
        (signed({}, "other"), "signature is invalid"),
        (unsigned(), "signing method is unavailable: use HS256, HS384 or HS512"),
        (signed({"exp": NOW - 1}), "Token is expired"),
        (signed({"iat": NOW + 5}), "Token used before issued"),
        (signed({"nbf": NOW + 5}), "Token is not valid yet"),
        (signed({"exp": "tomorrow"}), "token is malformed: exp is no number"),
        (signed([]), "token is malformed: its payload is no object"),
    ],
)
def test_bad_tokens(token: str | None, why: str) -> None:
    with pytest.raises(tokens.TokenRefused) as refused:
        tokens.verify(token, "k", NOW)
    assert str(refused.value).startswith(why)
