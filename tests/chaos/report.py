"""How is the chaos told? Pure: from what was found to Markdown and JSON."""

from collections import Counter
from dataclasses import dataclass

import msgspec

from tests.chaos.audit import EXAMPLES, Defects
from tests.chaos.seen import Seen, outcome


@dataclass(frozen=True, slots=True)
class Report:
    """What was done, what callers saw, and what was wrong."""

    seed: int
    minutes: float
    rate: float
    deeds: list[str]
    seen: list[Seen]
    accepted: int
    defects: Defects

    @property
    def went_well(self) -> bool:
        """Whether each promise was kept."""
        return not any(self.defects.values())

    def outcomes(self) -> dict[str, dict[str, int]]:
        """Return by kind of call how often it ended how."""
        counted: dict[str, Counter[str]] = {}
        for call in self.seen:
            counted.setdefault(call.kind.name, Counter())[outcome(call)] += 1
        return {kind: dict(counter.most_common()) for kind, counter in sorted(counted.items())}

    def json(self) -> bytes:
        """Return it as JSON."""
        counts = {what: len(found) for what, found in self.defects.items()}
        whole = {
            "seed": self.seed,
            "minutes": self.minutes,
            "calls_per_s": self.rate,
            "calls": len(self.seen),
            "accepted": self.accepted,
            "outcomes": self.outcomes(),
            "deeds": self.deeds,
            "defects": counts,
            "examples": {what: found[:EXAMPLES] for what, found in self.defects.items() if found},
        }
        return msgspec.json.format(msgspec.json.encode(whole), indent=2)

    def markdown(self) -> str:
        """Return it as Markdown."""
        deeds = Counter(" ".join(deed.split()[1:3]).rstrip(",") for deed in self.deeds)
        lines = [
            f"# Chaos: seed {self.seed}, {self.minutes:g} min, {self.rate:g} calls/s",
            "",
            f"{len(self.seen):,} calls, {self.accepted:,} accepted to run later. Harm done:",
            f"{', '.join(f'{count} x {what}' for what, count in deeds.most_common())}.",
            "",
            "| kind of call | what callers saw |",
            "|---|---|",
            *(f"| {kind} | {_counts(ends)} |" for kind, ends in self.outcomes().items()),
            "",
            "| promise broken | how often |",
            "|---|---:|",
            *(f"| {what} | {len(found)} |" for what, found in self.defects.items()),
            "",
        ]
        for what, found in self.defects.items():
            lines += [f"- {what}: {example}" for example in found[:EXAMPLES]]
        return "\n".join(lines)


def _counts(ends: dict[str, int]) -> str:
    return ", ".join(f"{count:,} x {what}" for what, count in ends.items())
