"""Is a request signed as RFC 5849 says? What a server checks, written from the specification alone.

Nothing is shared with the function that signs: each step takes the request as it came over the
wire and does what its section demands of a server.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

#: How far a timestamp may be from the server's time, in seconds.
SKEW_S = 300
#: Section 3.6: what is not encoded.
UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
#: Section 3.5.1: one parameter of the header.
PARAMETER = re.compile(r'([^=\s",]+)="([^"]*)"')


class Refused(Exception):
    """The request is not signed by whom it says it is."""


@dataclass(frozen=True)
class Request:
    """A request without a body, as it came: `target` is what stood in the request line."""

    method: str
    scheme: str
    host: str
    target: str
    authorization: str


@dataclass
class Verifier:
    """Knows the secrets of clients and tokens; remembers the nonces, each of which works once."""

    client_secrets: Mapping[str, str]
    token_secrets: Mapping[str, str]
    used: set[tuple[str, ...]] = field(default_factory=set)

    def check(self, request: Request, now_s: int) -> None:
        """Let a request pass, or raise Refused with the reason (section 3.2)."""
        oauth = header_parameters(request.authorization)
        if oauth.get("oauth_signature_method") != "HMAC-SHA1":
            raise Refused("the signature method is not HMAC-SHA1")
        if oauth.get("oauth_version", "1.0") != "1.0":
            raise Refused("the version is not 1.0")
        client, token = oauth.get("oauth_consumer_key", ""), oauth.get("oauth_token", "")
        if client not in self.client_secrets or token not in self.token_secrets:
            raise Refused("unknown client or token")
        key = f"{encode(self.client_secrets[client])}&{encode(self.token_secrets[token])}"
        expected = hmac.new(key.encode(), base_string(request, oauth).encode(), hashlib.sha1)
        given = oauth.get("oauth_signature", "")
        if not hmac.compare_digest(base64.b64encode(expected.digest()), given.encode()):
            raise Refused("the signature is another one")
        self._check_freshness(oauth, (client, token), now_s)

    def _check_freshness(self, oauth: Mapping[str, str], who: tuple[str, str], now_s: int) -> None:
        timestamp, nonce = oauth.get("oauth_timestamp", ""), oauth.get("oauth_nonce", "")
        if not timestamp.isdecimal() or abs(int(timestamp) - now_s) > SKEW_S:
            raise Refused("the timestamp is not now")
        if not nonce or (*who, timestamp, nonce) in self.used:
            raise Refused("the nonce is missing or was used before")
        self.used.add((*who, timestamp, nonce))


def encode(text: str) -> str:
    """Encode text byte by byte (section 3.6)."""
    return "".join(
        chr(byte) if byte in UNRESERVED else f"%{byte:02X}" for byte in text.encode("utf-8")
    )


def decode(text: str) -> str:
    """Undo percent-encoding, of whichever bytes it encodes."""
    whole = re.sub(
        rb"%([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), text.encode("utf-8")
    )
    return whole.decode("utf-8")


def header_parameters(authorization: str) -> dict[str, str]:
    """Return the parameters of an Authorization header, decoded (section 3.5.1)."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "oauth":
        raise Refused("no OAuth authorization")
    parameters: dict[str, str] = {}
    for part in rest.split(","):
        found = PARAMETER.fullmatch(part.strip())
        if not found or decode(found[1]) in parameters:
            raise Refused(f"malformed or repeated parameter: {part.strip()}")
        parameters[decode(found[1])] = decode(found[2])
    return parameters


def query_parameters(target: str) -> list[tuple[str, str]]:
    """Return the parameters of a request's query, decoded as those of a form (3.4.1.3.1)."""
    _, _, query = target.partition("?")
    pairs = (part.partition("=") for part in query.split("&") if part)
    return [
        (decode(name.replace("+", " ")), decode(value.replace("+", " ")))
        for name, _, value in pairs
    ]


def base_string(request: Request, oauth: Mapping[str, str]) -> str:
    """Return the text that must have been signed (section 3.4.1)."""
    scheme, host = request.scheme.lower(), request.host.lower()
    own_port = {"http": ":80", "https": ":443"}[scheme]
    path = request.target.partition("?")[0]
    uri = f"{scheme}://{host.removesuffix(own_port)}{path}"
    signed = [pair for pair in oauth.items() if pair[0] not in ("realm", "oauth_signature")]
    pairs = [(encode(n), encode(v)) for n, v in [*query_parameters(request.target), *signed]]
    pairs.sort(key=lambda pair: (pair[0].encode(), pair[1].encode()))
    normalized = "&".join(f"{name}={value}" for name, value in pairs)
    return f"{request.method.upper()}&{encode(uri)}&{encode(normalized)}"
