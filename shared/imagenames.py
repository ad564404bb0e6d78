"""By which name is an image known to be on a disk? Pure."""


def on_disk(image: str) -> str:
    """Return the name by which runners tell that they have an image: a digest makes the tag void.

    >>> on_disk("127.0.0.1:5000/me/greet:2@sha256:0a"), on_disk("127.0.0.1:5000/me/greet:2")
    ('127.0.0.1:5000/me/greet@sha256:0a', '127.0.0.1:5000/me/greet:2')
    """
    name, at, digest = image.partition("@")
    if not at:
        return image
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}@{digest}"
