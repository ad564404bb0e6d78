# PHP functions: Debian's PHP for the command line.
ARG DEBIAN=millrace/debian:local
FROM ${DEBIAN}
RUN set -e; \
    apt-get -q update; \
    DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends ca-certificates php-cli; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /function
LABEL millrace.runtime=php:8.2
