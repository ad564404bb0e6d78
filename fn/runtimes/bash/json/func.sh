#!/bin/bash
# Greets whom a call's body names: a line of JSON per call, and a line per answer.
set -euo pipefail

while read -r call; do
    name=$(jq -r .body <<<"$call")
    jq -cn --arg body "Hello, ${name:-World}!"$'\n' '{content_type: "text/plain", body: $body}'
done
