# The daemon as an image: Debian 12 and its Python, the packages of requirements.lock by their hashes, and this checkout.
# docs/docker.md tells how it is run.
ARG BASE=docker.io/library/debian:bookworm-slim
# What builds may need more than what runs, such as the certificate of a mirror; it must have the same Python.
ARG BUILD_BASE=${BASE}

FROM ${BUILD_BASE} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils python3 python3-venv
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1

# What changes seldom comes first.
COPY requirements.lock ./
RUN python3 -m venv /opt/lxdsched \
    && /opt/lxdsched/bin/pip install --no-compile --require-hashes --only-binary :all: --requirement requirements.lock

COPY requirements-dev.lock ./
COPY scripts/build-lock scripts/
RUN scripts/build-lock >build.lock \
    && python3 -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --only-binary :all: --requirement build.lock

COPY . ./
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheel . \
    && /opt/lxdsched/bin/pip install --no-compile --no-deps --no-index /wheel/lxdsched-*.whl \
    && /opt/lxdsched/bin/pip check \
    && scripts/image-trim /opt/lxdsched


FROM ${BASE}
# Nothing in here may become another user: the bits that allow it go, those of Debian's own programs too.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/log/* /usr/share/man/* \
    && find /usr/share/doc -type f ! -name copyright -delete \
    && find / -xdev -perm /6000 ! -type l -exec chmod a-s {} + \
    && groupadd --gid 10001 lxdsched \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin lxdsched \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/lxdsched
COPY --from=build /opt/lxdsched /opt/lxdsched

LABEL org.opencontainers.image.title="lxdsched" \
    org.opencontainers.image.description="Picks the LXD host on which the next instance shall go" \
    org.opencontainers.image.licenses="Apache-2.0"
# A container's own loopback address is reached by nobody: docker and the firewall say who gets to it from outside.
ENV PATH=/opt/lxdsched/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LXD_MULTI_SCHEDULER_INTERFACE=0.0.0.0
USER 10001:10001
WORKDIR /
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["lxdsched", "health"]
ENTRYPOINT ["twistd", "--nodaemon", "--pidfile=", "lxdsched"]
