"""Of which primes is a number the product? For callers who do not wait for it.

A request like

    {"number": 600851475143}

writes

    {"call_id": "01a2...", "number": 600851475143, "factors": [71, 839, 1471, 6857]}

to standard output. The route is async: the caller has its answer (202) long before that, and the
platform sends what stands here to the address in the caller's `X-Callback-Url`.
"""

# ruff: noqa: INP001 (a function's folder is what goes into its image, not a package)

import json
import os
import sys

#: The largest number that is worked on: a prime of this size takes some seconds.
LARGEST = 10**15


class BadRequest(Exception):
    """What stands on standard input is not a request."""

    exit_code = 2


def parse_number(raw: bytes) -> int:
    """Return the number that a request names."""
    try:
        request = json.loads(raw)
    except ValueError as error:
        raise BadRequest(f"standard input is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise BadRequest('standard input is not a JSON object with "number"')
    number = request.get("number")
    if not isinstance(number, int) or isinstance(number, bool) or not 2 <= number <= LARGEST:  # noqa: PLR2004 (the smallest prime)
        raise BadRequest(f'"number" is {json.dumps(number)}; it must be from 2 to {LARGEST}')
    return number


def factors(number: int) -> list[int]:
    """Return the primes whose product a number is, in order.

    >>> factors(12)
    [2, 2, 3]
    """
    found, divisor = [], 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1 if divisor == 2 else 2  # noqa: PLR2004 (the only even one)
    return [*found, number] if number > 1 else found


def main() -> int:
    """Serve one call; return the exit code."""
    try:
        number = parse_number(sys.stdin.buffer.read())
    except BadRequest as problem:
        sys.stderr.write(f"{problem}\n")
        return problem.exit_code
    told = {"call_id": os.environ.get("CALL_ID", ""), "number": number, "factors": factors(number)}
    print(json.dumps(told))  # noqa: T201 (the answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
