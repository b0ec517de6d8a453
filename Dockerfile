# The image of a worker: `docker build -t iolaus .`. Everything below also suits engines without BuildKit.
#
#   docker build -t iolaus .                                     compiles in the image of Rust, and needs nothing but this directory
#   cargo build --release --features temporal
#   docker build -t iolaus --target prebuilt --build-arg BINARY=target/release/iolaus \
#     --build-arg BASE=gcr.io/distroless/cc-debian12 .           takes a program that is there, a path in this directory
#
# BASE needs glibc (no older than that of the compiling machine), libgcc_s and, for `prebuilt`, CA certificates in /etc/ssl/certs;
# debian:*-slim has none, and the compiling stage brings them. Nothing is run in it: it needs no shell.
# Jobs in hand get 25 s (`worker.drain_deadline`) to finish on SIGTERM, and 10 s more to obey: `docker stop -t 40`.
ARG BASE=debian:bookworm-slim
ARG RUST=rust:1.95-slim-bookworm

# An empty directory to copy, because making one for another user would need a shell.
FROM ${BASE} AS empty
WORKDIR /empty

FROM ${BASE} AS runtime
COPY --from=empty --chown=10001:10001 /empty /var/lib/iolaus
ENV IOLAUS_DATABASE__PATH=/var/lib/iolaus/iolaus.db
# A number, so that Kubernetes' runAsNonRoot can see that it is not root.
USER 10001:10001
# Healthy means that the worker of this very container has lately renewed its row in the queue or, on a cluster, polled it.
HEALTHCHECK --interval=5s --timeout=4s --start-period=10s --retries=3 CMD ["iolaus", "status", "--require-worker=here"]
ENTRYPOINT ["iolaus"]
CMD ["worker"]

# Stands before the stage that compiles: builders without BuildKit go through every stage up to the one that is asked for. For the
# same reason BINARY has to name some file when nobody asks for this stage.
FROM runtime AS prebuilt
ARG BINARY=Cargo.toml
COPY ${BINARY} /usr/local/bin/iolaus

FROM ${RUST} AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY activities activities
COPY config config
COPY src src
# With both hosts: `host.kind` chooses.
RUN cargo build --release --locked --features temporal --bin iolaus \
 && mkdir -p /image/usr/local/bin /image/etc/ssl/certs \
 && cp target/release/iolaus /image/usr/local/bin/ \
 && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/

FROM runtime
COPY --from=build /image /
