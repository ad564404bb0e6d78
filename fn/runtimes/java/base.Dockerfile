# What Java functions run on: Debian's JRE.
ARG DEBIAN=millrace/debian:local
FROM ${DEBIAN}
RUN set -e; \
    apt-get -q update; \
    DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends ca-certificates default-jre-headless; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /function
LABEL millrace.runtime=java:17
