# A KMS host in a container: see docs/container.rst.
#
# Two stages, so that the compiler and pip stay behind: the first makes a virtual environment, the second has Debian's
# Python, that environment, and nothing else.  A release of Debian is named by its tag and not by a digest, so that a
# build gets its security updates; build with --pull, and build again when Debian or a dependency is mended.
ARG DEBIAN=trixie

FROM docker.io/library/debian:${DEBIAN}-slim AS build
# The version of a package is the release's: it changes with security updates only.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev python3-dev python3-venv
COPY . /source
# Neither pip nor the tests of Twisted and others have work to do in the image; the tests are a third of it.  twistd
# writes the cache of its plugins now, because it cannot where it will run.
RUN python3 -m venv /opt/kmsproto \
    && KMSPROTO_NATIVE_CIPHER=require /opt/kmsproto/bin/pip install --no-cache-dir /source \
    && /opt/kmsproto/bin/pip uninstall --yes pip \
    && find /opt/kmsproto/lib -type d -regex '.*/tests?' -prune -exec rm -r {} + \
    && /opt/kmsproto/bin/twistd kms --version

FROM docker.io/library/debian:${DEBIAN}-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/* \
    && install --directory --owner=65532 --group=65532 --mode=0750 /var/lib/kmsproto
COPY --from=build /opt/kmsproto /opt/kmsproto

ENV PATH=/opt/kmsproto/bin:/usr/local/bin:/usr/bin:/bin \
    LC_ALL=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    KMSPROTO_STATE_DIRECTORY=/var/lib/kmsproto

# A number, since a cluster that refuses root cannot tell what is behind a name.
USER 65532:65532
WORKDIR /var/lib/kmsproto
VOLUME /var/lib/kmsproto
EXPOSE 1688/tcp

# A real activation, verified as a client verifies it.  For a container health is 0 or 1, and the check knows more.
HEALTHCHECK --interval=60s --timeout=10s --start-period=20s --retries=3 \
    CMD ["sh", "-c", "kmsproto check --timeout 8 127.0.0.1:${KMSPROTO_PORT:-1688} || exit 1"]

# No shell stands between the engine and twistd, which therefore gets SIGTERM and SIGHUP itself; what comes after the
# image's name in "docker run" are options of "twistd kms".  Whoever is process 1 needs no pidfile.
ENTRYPOINT ["twistd", "--nodaemon", "--pidfile=", "kms"]
