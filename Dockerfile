# syntax=docker/dockerfile:1
# Tidegate in an image with nothing else in it: one static binary (musl), the roots of public authorities, a user without rights.
#
#   docker buildx build --target sidecar -t YOUR/tidegate:0.1.0 .            # the sidecar
#   docker buildx build --target full -t YOUR/tidegate:0.1.0-full .          # with load generator, simulator and demo
#   docker buildx build --platform linux/amd64,linux/arm64 --sbom=true --provenance=mode=max --push ...
#
# --sbom=true attaches a list of all packages: of the image, and of the stage that builds (BUILDKIT_SBOM_SCAN_STAGE), where Cargo.lock
# names every crate. The same sources, lock file and base image give the same binary: give RUST_IMAGE a digest
# (rust@sha256:...), and SOURCE_DATE_EPOCH for the times of files.

ARG RUST_IMAGE=rust:1.95.0-alpine3.22

# An image of musl for each platform builds for itself: no cross compiler for the C in ring, zstd and mimalloc.
# hadolint ignore=DL3006
FROM ${RUST_IMAGE} AS build
ARG BUILDKIT_SBOM_SCAN_STAGE=true
ARG TARGETARCH
# What `tidegate_build_info` says it was made from: --build-arg REVISION="$(git rev-parse HEAD)".
ARG REVISION=unknown
ENV TIDEGATE_REVISION=${REVISION} \
    CARGO_INCREMENTAL=0 \
    CARGO_PROFILE_RELEASE_DEBUG=none \
    CARGO_PROFILE_RELEASE_STRIP=symbols \
    RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=/src=. --remap-path-prefix=/usr/local/cargo=cargo"
WORKDIR /src
COPY . .

# amd64 and arm64 are what the project is meant for; another platform ends here, and not with a binary that nobody has tried.
FROM build AS build-sidecar
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,id=tidegate-sidecar-${TARGETARCH},target=/src/target \
    case "${TARGETARCH}" in amd64) machine=x86_64 ;; arm64) machine=aarch64 ;; *) exit 1 ;; esac \
    && cargo build --release --locked --package tidegate --no-default-features --target "${machine}-unknown-linux-musl" \
    && install -D -m 0555 "target/${machine}-unknown-linux-musl/release/tidegate" /out/tidegate

FROM build AS build-full
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,id=tidegate-full-${TARGETARCH},target=/src/target \
    case "${TARGETARCH}" in amd64) machine=x86_64 ;; arm64) machine=aarch64 ;; *) exit 1 ;; esac \
    && cargo build --release --locked --package tidegate --target "${machine}-unknown-linux-musl" \
    && install -D -m 0555 "target/${machine}-unknown-linux-musl/release/tidegate" /out/tidegate

FROM scratch AS empty
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# By number, so that a cluster can see that it is not root.
USER 65532:65532
ENTRYPOINT ["/tidegate"]
LABEL org.opencontainers.image.title="tidegate" \
      org.opencontainers.image.description="The observability sidecar for model APIs" \
      org.opencontainers.image.licenses="Apache-2.0"

FROM empty AS sidecar
COPY --from=build-sidecar /out/tidegate /tidegate
CMD ["proxy"]

# The last one is what a build without --target makes.
FROM empty AS full
COPY --from=build-full /out/tidegate /tidegate
CMD ["help"]
