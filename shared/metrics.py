"""Which metrics do several services share? Their own ones live beside the code that counts."""

from prometheus_client import Counter

UNDECODABLE = Counter(
    "millrace_undecodable_entries_total", "Stream entries nobody could decode.", ["stream"]
)
