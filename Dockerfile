# docker build --tag uproxy .                             (or podman, or buildah; `make image`)
# docker build --tag uproxy:nonroot --target nonroot .    docs/install/image.md says what each can do

# The digest makes the same commit give the same Debian. Dependabot renews it; by hand, take what
# `skopeo inspect --format '{{.Digest}}' docker://docker.io/library/debian:trixie-slim` prints.
FROM docker.io/library/debian:trixie-slim@sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f AS build
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends \
    binutils ca-certificates iproute2 nftables python3 python3-pip
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY uproxy uproxy
COPY deploy/build-rootfs.sh deploy/build-system.py deploy/
COPY deploy/seccomp deploy/seccomp
# Whoever has a package index of their own gives pip's configuration as a secret, which is in no layer.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.crt \
    deploy/build-rootfs.sh /image && deploy/build-system.py /image

FROM scratch AS image
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="uproxy" \
      org.opencontainers.image.description="Every Kubernetes Service reachable on a node, from userspace" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /image /
ENV PATH=/opt/uproxy:/usr/sbin:/usr/bin
# Nothing is imported from the current directory.
ENV PYTHONSAFEPATH=1
ENTRYPOINT ["/opt/uproxy/uproxy"]

# For NodePorts and other addresses that the node has. This user has no capability, so uproxy claims
# nothing, and pods see an address of the node.
FROM image AS nonroot
USER 65532:65532
CMD ["run"]

# The last stage is what is built without --target. UID 0, because Kubernetes does not support ambient
# capabilities: any other user would lose them. The DaemonSet drops all that are not needed.
FROM image AS root
USER 0:0
CMD ["run"]
