# syntax=docker/dockerfile:1

# The build: Pingora needs cmake; everything else is in the image. Versions come from Cargo.lock alone.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake g++ make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin sidekey && mkdir target/state

# What runs: the C library, root certificates, and one program. No shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/release/sidekey /usr/local/bin/sidekey
# For a store; a new volume that is mounted here takes over its owner.
COPY --from=build --chown=65532:65532 /build/target/state /var/lib/sidekey
USER 65532:65532
ENV SIDEKEY_CONFIG=/etc/sidekey/sidekey.toml
# public, egress, metrics
EXPOSE 8700 8701 9464
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/sidekey"]
CMD ["serve"]
