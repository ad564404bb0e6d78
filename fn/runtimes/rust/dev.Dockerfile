# What Rust functions are built by: Debian's Rust with Cargo.
ARG DEBIAN=millrace/debian:local
FROM ${DEBIAN}
RUN set -e; \
    apt-get -q update; \
    DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends ca-certificates cargo rustc libc6-dev gcc; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /src
LABEL millrace.runtime=rust:1.63-dev
