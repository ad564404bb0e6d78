"""How is a token signed, as the platform checks it? HS256, with the times the original writes."""

from __future__ import annotations

import json

LIFETIME_S = 3600
#: How far behind this machine's clock the platform's may be.
_TOLERANCE_S = 60


def sign(key: str, now_s: float, lifetime_s: int = LIFETIME_S) -> str:
    """Return a token signed with `key` at an epoch time, good for `lifetime_s` seconds.

    Any text serves as the key, as it does on the platform.
    """
    import jwt  # noqa: PLC0415 (only platforms with keys need it)
    from jwt.algorithms import HMACAlgorithm  # noqa: PLC0415 (as above)

    class AnySecret(HMACAlgorithm):
        """Takes any text; the library refuses some that could be public keys, which none is."""

        def prepare_key(self, key: str | bytes) -> bytes:
            return key.encode() if isinstance(key, str) else key

        def check_key_length(self, key: bytes) -> str | None:  # noqa: ARG002 (the library's)
            return None

    signer = jwt.PyJWS(algorithms=[])
    signer.register_algorithm("HS256", AnySecret(HMACAlgorithm.SHA256))
    begun_s = int(now_s) - _TOLERANCE_S
    claims = {"exp": int(now_s) + lifetime_s, "iat": begun_s, "nbf": begun_s}
    return signer.encode(json.dumps(claims).encode(), key, algorithm="HS256")
