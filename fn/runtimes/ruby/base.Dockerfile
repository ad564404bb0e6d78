# Ruby functions: Debian's Ruby with Bundler.
ARG DEBIAN=millrace/debian:local
FROM ${DEBIAN}
RUN set -e; \
    apt-get -q update; \
    DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends ca-certificates ruby ruby-bundler; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /function
LABEL millrace.runtime=ruby:3.1
