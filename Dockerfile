# docker build --tag uproxy .
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY uproxy uproxy
COPY deploy/build-rootfs.sh deploy/
RUN deploy/build-rootfs.sh /rootfs

FROM python:${PYTHON}-slim
# nft and ip are used to show clients' addresses to pods (externalTrafficPolicy: Local).
RUN apt-get update \
 && apt-get install --yes --no-install-recommends iproute2 nftables \
 && rm -rf /var/lib/apt/lists/* \
 && pip uninstall --yes --quiet --root-user-action=ignore pip \
 && python -c "import shutil, ensurepip; shutil.rmtree(ensurepip.__path__[0])"
COPY --from=build /rootfs/ /
# UID 0, because Kubernetes does not support ambient capabilities: any other user would lose them.
# The DaemonSet in deploy/kustomize drops all capabilities that are not needed.
# Nothing is imported from the current directory.
ENV PYTHONSAFEPATH=1
ENTRYPOINT ["/opt/uproxy/uproxy"]
CMD ["run"]
