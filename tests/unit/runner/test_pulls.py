"""Is it told why an image could not be pulled, and whose fault it was?"""

import pytest

from services.runner import pulls
from services.runner.credentials import Credential
from services.runner.pulls import Trouble
from shared.errors import CODES

IMAGE = "127.0.0.1:5000/me/x:1@sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (404, "manifest for 127.0.0.1:5000/x:1 not found: manifest unknown", Trouble.ABSENT),
        (404, "pull access denied for x, repository does not exist or may ...", Trouble.ABSENT),
        (500, "name unknown: repository name not known to registry", Trouble.ABSENT),
        (400, "invalid reference format", Trouble.ABSENT),
        (500, 'Head "http://h:1/v2/x/manifests/1": no basic auth credentials', Trouble.REFUSED),
        (500, "unauthorized: authentication required", Trouble.REFUSED),
        (500, "denied: requested access to the resource is denied", Trouble.REFUSED),
        (401, "", Trouble.REFUSED),
        (500, "dial tcp: lookup nobody.invalid: no such host", Trouble.UNKNOWN_REGISTRY),
        (404, "dial tcp: lookup nobody.invalid: no such host", Trouble.UNKNOWN_REGISTRY),
        (500, "dial tcp 127.0.0.1:5000: connect: connection refused", Trouble.AWAY),
        (500, "net/http: request canceled while waiting for connection", Trouble.AWAY),
        (500, "write /var/lib/docker/tmp/x: no space left on device", Trouble.AWAY),
        (503, "", Trouble.AWAY),
    ],
)
def test_what_the_engine_says_tells_the_trouble(
    status: int, message: str, expected: Trouble
) -> None:
    assert pulls.trouble(status, message) is expected


def test_only_a_registry_that_is_not_there_is_asked_again() -> None:
    assert [t for t in Trouble if not t.final] == [Trouble.UNKNOWN_REGISTRY, Trouble.AWAY]


@pytest.mark.parametrize(
    ("trouble", "fault"),
    [
        (Trouble.ABSENT, "function"),
        (Trouble.UNKNOWN_REGISTRY, "function"),
        (Trouble.REFUSED, "platform"),
        (Trouble.AWAY, "platform"),
    ],
)
def test_each_trouble_is_somebodys_fault(trouble: Trouble, fault: str) -> None:
    code = CODES[trouble.value]
    assert (code.word, code.status, code.fault) == ("image_pull", 500, fault)


@pytest.mark.parametrize("trouble", Trouble)
def test_the_registry_and_the_engines_own_words_are_told(trouble: Trouble) -> None:
    said = pulls.told(trouble, IMAGE, None, "the engine's words")
    assert "127.0.0.1:5000" in said
    assert said.endswith(": the engine's words")


def test_a_wrong_password_is_told_apart_from_none_and_never_shown() -> None:
    wrong = pulls.told(Trouble.REFUSED, IMAGE, Credential("r", "me", "s3cret"), "no")
    assert "refuses the password of 'me' in the runners' DOCKER_AUTH" in wrong
    assert "s3cret" not in wrong
    assert "wants a password" in pulls.told(Trouble.REFUSED, IMAGE, None, "no")
