"""Which network namespace does a sandbox get? Pure: who has one, who may have it.

Making a network namespace is most of what starting a container costs. So each is kept by a
container of its own, a holder, which does nothing else, and sandboxes join it. Those of one app
share one. A sandbox that is to be alone has one in which no other is at the same time; the next
one there is of the same app.
"""

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace: the container that keeps it, and where the engine has its files.

    `binds` puts the namespace's `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`, which all
    its sandboxes see, read-only into a sandbox: none must leave anything there for another.
    """

    container_id: str
    binds: tuple[str, ...] = ()


@dataclass(slots=True)
class _Kept:
    """A namespace of an app."""

    namespace: Namespace
    app: str
    alone: bool
    sandboxes: int = 0
    #: Since when no sandbox is in it, in seconds.
    idle_since_s: float = 0.0

    def free_for(self, app: str, *, alone: bool) -> bool:
        fits = self.app == app and self.alone == alone
        return fits and not (alone and self.sandboxes)


@dataclass
class Pool:
    """Lends namespaces to sandboxes. Owned by `holders.Holders`.

    Invariants: a namespace that was an app's is never another's; of those whose sandboxes are to
    be alone, each has at most one.

    Worked example: with one spare S, `take("a")` gives S, and so does the next `take("a")`;
    `take("b")` gives None, so the caller makes T and says `keep(T, "b")`; then `take("b")` gives T.
    `take("a", alone=True)` gives None: S is shared. When both sandboxes in S are gone it is idle,
    and some time later removed.
    """

    spares_wanted: int
    idle_max: int
    idle_max_s: float
    _spares: deque[Namespace] = field(default_factory=deque)
    #: By container. Of the idle ones, that which has been idle for longest comes first.
    _kept: dict[str, _Kept] = field(default_factory=dict)

    def take(self, app: str, *, alone: bool = False) -> Namespace | None:
        """Lend a namespace to a sandbox of an app; None: make one, `keep` it and ask again."""
        for kept in reversed(self._kept.values()):
            if kept.free_for(app, alone=alone):
                kept.sandboxes += 1
                return kept.namespace
        if not self._spares:
            return None
        self.keep(self._spares.popleft(), app, alone=alone)
        return self.take(app, alone=alone)

    def keep(
        self, namespace: Namespace, app: str, *, alone: bool = False, now_s: float = 0.0
    ) -> None:
        """Let a new namespace be an app's."""
        kept = _Kept(namespace, app, alone, idle_since_s=now_s)
        self._kept[namespace.container_id] = kept

    def give_back(
        self, namespace: Namespace, now_s: float, *, clean: bool = True
    ) -> list[Namespace]:
        """Take back what a sandbox had that is gone; return the namespaces to remove by now.

        `clean`: it is certain that nothing of the sandbox is left there. One that was lost
        meanwhile may be given back as well.
        """
        kept = self._kept.pop(namespace.container_id, None)
        if kept is None:
            return []
        kept.sandboxes -= 1
        kept.idle_since_s = now_s
        if kept.alone and not clean:
            return [namespace]
        self._kept[namespace.container_id] = kept
        idle = self._idle()
        return self._take_out(idle[: max(0, len(idle) - self.idle_max)])

    def lost(self, namespace: Namespace) -> None:
        """Note that a namespace is of no use any more: nobody gets it again."""
        self._kept.pop(namespace.container_id, None)
        if namespace in self._spares:
            self._spares.remove(namespace)

    def expire(self, now_s: float) -> list[Namespace]:
        """Return the namespaces nobody has used for too long, which are to be removed."""
        old = [kept for kept in self._idle() if now_s - kept.idle_since_s >= self.idle_max_s]
        return self._take_out(old)

    def _idle(self) -> list[_Kept]:
        return [kept for kept in self._kept.values() if not kept.sandboxes]

    def _take_out(self, removed: list[_Kept]) -> list[Namespace]:
        for kept in removed:
            del self._kept[kept.namespace.container_id]
        return [kept.namespace for kept in removed]

    def spares_missing(self) -> int:
        """Return how many spares are to be made."""
        return max(0, self.spares_wanted - len(self._spares))

    def add_spare(self, namespace: Namespace) -> None:
        """Keep a new namespace for an app that has none."""
        self._spares.append(namespace)

    def clear(self) -> list[Namespace]:
        """Forget and return all in which no sandbox is."""
        out = [*self._spares, *self._take_out(self._idle())]
        self._spares.clear()
        return out

    def known(self) -> set[str]:
        """Return the container ids of all namespaces that are in use or will be."""
        return {namespace.container_id for namespace in self._spares} | set(self._kept)
