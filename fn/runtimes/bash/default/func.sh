#!/bin/bash
# Greets whom its input names. Each call has a process of its own.
set -euo pipefail

name=$(cat)
echo "Hello, ${name:-World}!"
