"""Which async calls were passed over, for want of room, and from where on are they to be read?

Knows entries by app and id alone. Calls of an app are taken in the order of their stream: while
some are passed over, all that come after them are too.
"""

from collections.abc import Callable


class Unread:
    """For each app, its first entry that is not referenced; and for which apps a scan is under way.

    The race: while a scan runs, newer calls of its app come by the usual way. They are passed over,
    and the scan or a later one finds them.
    """

    def __init__(self) -> None:
        self._first: dict[str, bytes] = {}
        self._scanning: set[str] = set()

    def __bool__(self) -> bool:
        """Whether there is anything to scan for."""
        return bool(self._first)

    def is_behind(self, app_name: str) -> bool:
        """Say whether calls of an app that came before are still to be read."""
        return app_name in self._first or app_name in self._scanning

    def pass_over(self, app_name: str, entry_id: bytes) -> None:
        """Note that a call was not taken in."""
        self._first.setdefault(app_name, entry_id)

    def scan(self, is_due: Callable[[str], bool]) -> list[tuple[str, bytes]]:
        """Begin scans for apps that are due; returns them and where their unread calls begin."""
        found = [
            (name, entry_id)
            for name, entry_id in self._first.items()
            if name not in self._scanning and is_due(name)
        ]
        for name, _ in found:
            self._scanning.add(name)
            del self._first[name]
        return found

    def end_scan(self, app_name: str) -> None:
        """Note that a scan has been answered."""
        self._scanning.discard(app_name)

    def begin_at(self, app_name: str, entry_id: bytes) -> None:
        """Note where an app's unread calls begin, after a scan."""
        self._first[app_name] = entry_id
