"""What does an api replica count?"""

from prometheus_client import Counter, Gauge

from services.api.tallies import Tally, Timings

CALLS = Tally(
    "millrace_calls_total",
    "Calls answered; code is a word of the error table, or ok.",
    ["mode", "code"],
)
CALL_SECONDS = Timings(
    "millrace_call_seconds",
    "From accepting a sync call to having its reply.",
    [],
    (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
WAITING = Gauge("millrace_waiting_callers", "Callers this replica keeps waiting now.")
LATE_REPLIES = Counter(
    "millrace_unwanted_replies_total", "Replies nobody waited for: late, repeated, or unknown."
)
RECORDED = Counter("millrace_records_total", "Records written to MySQL, after merging.")
RECORDS_REFUSED = Counter(
    "millrace_records_refused_total", "Records that MySQL refused; they were set aside."
)
DEAD_LETTERS = Counter(
    "millrace_dead_letters_total", "Async calls kept because they failed for good.", ["code"]
)
REDRIVEN = Counter("millrace_dead_letters_redriven_total", "Dead letters made calls again.")
DROPPED = Counter(
    "millrace_dead_letters_dropped_total", "Dead letters given up: too old, or too many.", ["why"]
)
RECORDER_LAG = Gauge(
    "millrace_recorder_lag_seconds", "Age of the oldest record in the last batch written."
)
REPLAYS = Counter(
    "millrace_idempotent_replays_total", "Answers given once more, to requests with the same key."
)
CALLBACKS = Counter(
    "millrace_callbacks_total",
    "Callbacks made: delivered, to be tried again, or given up as failed.",
    ["outcome"],
)
