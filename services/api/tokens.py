"""Is this token good? Pure: HMAC-signed JSON Web Tokens, with time as an argument."""

import json
from typing import Any

import jwt
from jwt.algorithms import HMACAlgorithm

ALGORITHMS = {
    "HS256": HMACAlgorithm.SHA256,
    "HS384": HMACAlgorithm.SHA384,
    "HS512": HMACAlgorithm.SHA512,
}


class TokenRefused(Exception):
    """The token is missing or not good; the message is for the client."""


class _AnySecret(HMACAlgorithm):
    """Takes any text as the secret.

    The library refuses secrets that look like public keys, lest a public key serve as a secret.
    Here no other algorithm is ever accepted, and the secret is what the operator chose.
    """

    def prepare_key(self, key: str | bytes) -> bytes:
        return key.encode() if isinstance(key, str) else key

    def check_key_length(self, key: bytes) -> str | None:  # noqa: ARG002 (the library's signature)
        return None


def _verifier() -> jwt.PyJWS:
    verifier = jwt.PyJWS(algorithms=[])
    for name, digest in ALGORITHMS.items():
        verifier.register_algorithm(name, _AnySecret(digest))
    return verifier


_VERIFIER = _verifier()


def verify(authorization: str | None, key: str, now_s: float) -> None:
    """Check an `Authorization` header against a secret at an epoch time in seconds.

    The token may stand with or without `Bearer `. Of its claims `exp`, `nbf` and `iat` count,
    where present. Raises `TokenRefused`.
    """
    token = _bearer(authorization)
    if not token:
        raise TokenRefused("no token present in request")
    if token.count(".") != 2:  # noqa: PLR2004 (a signed token has three parts)
        raise TokenRefused("token contains an invalid number of segments")
    try:
        payload = _VERIFIER.decode(token, key, algorithms=list(ALGORITHMS))
    except jwt.InvalidSignatureError as error:
        raise TokenRefused("signature is invalid") from error
    except jwt.InvalidAlgorithmError as error:
        raise TokenRefused("signing method is unavailable: use HS256, HS384 or HS512") from error
    except UnicodeEncodeError as error:
        raise TokenRefused("token is malformed: it is no ASCII text") from error
    except (jwt.PyJWTError, RecursionError) as error:
        raise TokenRefused(f"token is malformed: {error}") from error
    _check_times(_claims(payload), now_s)


def _bearer(authorization: str | None) -> str:
    text = (authorization or "").strip()
    scheme, _, rest = text.partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else text


def _claims(payload: bytes) -> dict[str, Any]:
    try:
        claims = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise TokenRefused("token is malformed: its payload is no JSON") from error
    if not isinstance(claims, dict):
        raise TokenRefused("token is malformed: its payload is no object")
    return claims


def _check_times(claims: dict[str, Any], now_s: float) -> None:
    for name in ("exp", "iat", "nbf"):
        value = claims.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TokenRefused(f"token is malformed: {name} is no number")
    if now_s > claims.get("exp", now_s):
        raise TokenRefused("Token is expired")
    # Issuers write whole seconds, which a clock set alike may not have reached by its fractions.
    if now_s < claims.get("iat", now_s):
        raise TokenRefused("Token used before issued")
    if now_s < claims.get("nbf", now_s):
        raise TokenRefused("Token is not valid yet")
