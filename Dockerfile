# The driver with the tools of its filesystems. Any Debian with Python 3.11 or newer will do as base.
#
#   docker build -t csi-local-path:0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 -t csi-local-path:0.1.0 .
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /src
RUN python3 -m venv /opt/csi-local-path
COPY requirements.lock ./
RUN /opt/csi-local-path/bin/pip install --no-cache-dir --disable-pip-version-check \
        --require-hashes -r requirements.lock \
    && /opt/csi-local-path/bin/pip uninstall --yes --quiet pip setuptools
# The package is put where Python looks for it; the command is what its entry point would be.
COPY csi /tmp/csi
RUN mv /tmp/csi "$(/opt/csi-local-path/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/csi" \
    && printf '%s\n' '#!/opt/csi-local-path/bin/python' 'import sys' 'from csi.cli import main' \
        'sys.exit(main())' > /opt/csi-local-path/bin/csi-local-path \
    && chmod 0755 /opt/csi-local-path/bin/csi-local-path \
    && find /opt/csi-local-path -name __pycache__ -prune -exec rm -rf {} + \
    && /opt/csi-local-path/bin/python -m compileall -q /opt/csi-local-path/lib

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="csi-local-path" \
      org.opencontainers.image.description="CSI driver for volumes on a node's own disks" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        btrfs-progs e2fsprogs util-linux xfsprogs \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
COPY --from=build /opt/csi-local-path /opt/csi-local-path
ENV PATH=/opt/csi-local-path/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1
# The node role mounts filesystems and is root; the resizer role runs as anybody.
ENTRYPOINT ["csi-local-path"]
CMD ["serve"]
