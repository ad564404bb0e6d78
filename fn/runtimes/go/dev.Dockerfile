# What Go functions are built by: Debian's Go. They run on nothing: FROM scratch.
ARG DEBIAN=millrace/debian:local
FROM ${DEBIAN}
RUN set -e; \
    apt-get -q update; \
    DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends ca-certificates golang-go; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
# What most functions import is compiled once, here.
RUN CGO_ENABLED=0 go build -trimpath net/http encoding/json database/sql html/template
WORKDIR /src
LABEL millrace.runtime=go:1.19-dev
