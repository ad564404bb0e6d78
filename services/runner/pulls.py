"""Why could an image not be pulled, and whose fault is that? Pure: from the engine's own words."""

import enum
import re

from services.runner import credentials


class Trouble(enum.Enum):
    """What kept the engine from pulling; the value is the key of `errors.CODES`."""

    #: The registry does not have the image, or shows it to nobody.
    ABSENT = "image_pull"
    #: There is no registry of that name.
    UNKNOWN_REGISTRY = "image_pull_unknown_registry"
    #: The registry asks for a password, and takes none that the runner has.
    REFUSED = "image_pull_refused"
    #: The registry does not answer, or the engine failed in some way of its own.
    AWAY = "image_pull_away"

    @property
    def final(self) -> bool:
        """Whether trying again is of no use."""
        return self in {Trouble.ABSENT, Trouble.REFUSED}


_UNAUTHORIZED = 401
_FINAL_STATUSES = frozenset({400, 403, 404})
#: The first that is found decides.
_WORDS = (
    (re.compile(r"no such host"), Trouble.UNKNOWN_REGISTRY),
    (re.compile(r"pull access denied|manifest unknown|name unknown"), Trouble.ABSENT),
    (
        re.compile(r"unauthorized|no basic auth credentials|authentication required|denied"),
        Trouble.REFUSED,
    ),
    (re.compile(r"not found|invalid reference"), Trouble.ABSENT),
)


def trouble(status: int, message: str) -> Trouble:
    """Return what kept the engine from pulling, by its answer's status and message.

    >>> trouble(500, 'Head "http://hub:5000/v2/x/manifests/1": no basic auth credentials').name
    'REFUSED'
    >>> trouble(500, "dial tcp 127.0.0.1:5000: connect: connection refused").name
    'AWAY'
    """
    for words, found in _WORDS:
        if words.search(message):
            return found
    if status == _UNAUTHORIZED:
        return Trouble.REFUSED
    return Trouble.ABSENT if status in _FINAL_STATUSES else Trouble.AWAY


def told(
    found: Trouble, image: str, credential: credentials.Credential | None, message: str
) -> str:
    """Return what the caller is told: in plain words, and then in the engine's, `message`.

    >>> told(Trouble.AWAY, "127.0.0.1:5000/x:1", None, "connection refused")
    'the registry 127.0.0.1:5000 cannot be used now: connection refused'
    """
    registry = credentials.registry_of(image)
    refused = (
        f"refuses the password of {credential.username!r} in the runners' DOCKER_AUTH"
        if credential
        else "wants a password, and the runners' DOCKER_AUTH has none for it"
    )
    plain = {
        Trouble.ABSENT: f"the registry {registry} does not have it",
        Trouble.UNKNOWN_REGISTRY: f"it is not here, and no registry is known as {registry}",
        Trouble.REFUSED: f"the registry {registry} {refused}",
        Trouble.AWAY: f"the registry {registry} cannot be used now",
    }
    return f"{plain[found]}: {message}"
