# What Java functions are built by: Debian's JDK.
ARG DEBIAN=millrace/debian:local
FROM ${DEBIAN}
RUN set -e; \
    apt-get -q update; \
    DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends ca-certificates default-jdk-headless; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /src
LABEL millrace.runtime=java:17-dev
