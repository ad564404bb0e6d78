"""How much of a streamed answer may be under way? What its two ends agree on; pure numbers.

A runner sends `StreamChunk`s while fewer than `WINDOW_BYTES` of them are untaken. Of those that its
caller has taken, the api tells it in a `More`, each time another `MORE_EVERY_BYTES` are. A runner
that goes beyond `UNTAKEN_MAX_BYTES` breaks the agreement, and its answer is broken off.

Example: a runner has sent 1 MiB and stops. The caller's connection takes 300 KiB: the api sends
`More(taken_bytes=307200)`, and the runner sends 300 KiB more. The next `More` comes when at least
563,200 bytes are taken.
"""

WINDOW_BYTES = 1024 * 1024
MORE_EVERY_BYTES = 256 * 1024
UNTAKEN_MAX_BYTES = 2 * WINDOW_BYTES
