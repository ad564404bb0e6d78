"""Which network namespace does a call get? Pure: who has one, who may have it next.

Making a network namespace is most of what starting a container costs. So each is kept by a
container of its own, which does nothing else, and sandboxes join it. It is lent to one call at a
time, so that two calls never meet on its loopback, and only ever to calls of one app.
"""

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace: the container that keeps it, and where the engine has its files.

    `binds` puts the namespace's `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`, which all
    its sandboxes see, read-only into a sandbox: a call must not leave anything there for the next.
    """

    container_id: str
    binds: tuple[str, ...] = ()


@dataclass(slots=True)
class _Idle:
    namespace: Namespace
    app: str
    since_s: float


@dataclass
class Pool:
    """Lends namespaces to calls. Owned by `holders.Holders`.

    Invariant: a namespace is in one of `_spares`, `_idle`, `_lent`, or unknown here; one that has
    been lent to an app is never lent to another.

    Worked example: with one spare S, `take("a")` gives S; given back, it is idle for `a`;
    `take("b")` gives None, so the caller makes T and says `lend(T, "b")`; `take("a")` gives S.
    """

    spares_wanted: int
    idle_max: int
    idle_max_s: float
    _spares: deque[Namespace] = field(default_factory=deque)
    #: Oldest first.
    _idle: list[_Idle] = field(default_factory=list)
    _lent: dict[str, tuple[Namespace, str]] = field(default_factory=dict)

    def take(self, app: str) -> Namespace | None:
        """Lend the app's most lately used namespace, or a spare; None: make one and `lend` it."""
        for at in range(len(self._idle) - 1, -1, -1):
            if self._idle[at].app == app:
                return self.lend(self._idle.pop(at).namespace, app)
        return self.lend(self._spares.popleft(), app) if self._spares else None

    def lend(self, namespace: Namespace, app: str) -> Namespace:
        """Note that a new namespace is lent to a call of the app."""
        self._lent[namespace.container_id] = (namespace, app)
        return namespace

    def give_back(self, namespace: Namespace, now_s: float) -> list[Namespace]:
        """Take back a lent namespace whose sandbox is gone; return those to remove by now."""
        namespace, app = self._lent.pop(namespace.container_id)
        self._idle.append(_Idle(namespace, app, now_s))
        return self._take_out(max(0, len(self._idle) - self.idle_max))

    def forget(self, namespace: Namespace) -> None:
        """Note that a lent namespace is to be removed, not to be lent again."""
        del self._lent[namespace.container_id]

    def expire(self, now_s: float) -> list[Namespace]:
        """Return the namespaces nobody has used for too long, which are to be removed."""
        old = sum(1 for idle in self._idle if now_s - idle.since_s >= self.idle_max_s)
        return self._take_out(old)

    def _take_out(self, oldest: int) -> list[Namespace]:
        out, self._idle = self._idle[:oldest], self._idle[oldest:]
        return [idle.namespace for idle in out]

    def spares_missing(self) -> int:
        """Return how many spares are to be made."""
        return max(0, self.spares_wanted - len(self._spares))

    def add_spare(self, namespace: Namespace) -> None:
        """Keep a new namespace for an app that has none."""
        self._spares.append(namespace)

    def clear(self) -> list[Namespace]:
        """Forget and return all that are not lent."""
        out = [*self._spares, *(idle.namespace for idle in self._idle)]
        self._spares.clear()
        self._idle.clear()
        return out

    def known(self) -> set[str]:
        """Return the container ids of all namespaces that are in use or will be."""
        ids = {namespace.container_id for namespace in self._spares}
        return ids | {idle.namespace.container_id for idle in self._idle} | set(self._lent)
