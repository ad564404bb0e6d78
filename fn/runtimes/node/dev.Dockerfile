# What Node functions' dependencies are installed by: Debian's Node with npm.
ARG DEBIAN=millrace/debian:local
FROM ${DEBIAN}
RUN set -e; \
    apt-get -q update; \
    DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends ca-certificates nodejs npm; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /function
LABEL millrace.runtime=node:18-dev
