# Bash functions: Debian with curl and jq.
ARG DEBIAN=millrace/debian:local
FROM ${DEBIAN}
RUN set -e; \
    apt-get -q update; \
    DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends ca-certificates curl jq; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /function
LABEL millrace.runtime=bash:5.2
