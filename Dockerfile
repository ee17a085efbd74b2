# To build on exactly these bytes, pin the digest that this prints, and renew it when the tag has moved on:
#   docker buildx imagetools inspect python:3.12-slim --format '{{.Manifest.Digest}}'
#   docker build --build-arg BASE=python:3.12-slim@sha256:... .
ARG BASE=python:3.12-slim

FROM ${BASE} AS build

WORKDIR /src
RUN python3 -m venv /opt/lyftr
ENV PATH=/opt/lyftr/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

COPY requirements.txt ./
RUN pip install --require-hashes --requirement requirements.txt

COPY pyproject.toml setup.cfg README.md LICENSE ./
COPY lyftr_server/ lyftr_server/
RUN pip install --no-build-isolation --no-deps . \
 && pip uninstall --yes setuptools pip


FROM ${BASE}

LABEL org.opencontainers.image.title="lyftr-server" \
      org.opencontainers.image.description="A webhook daemon that stores each signed message once" \
      org.opencontainers.image.licenses="MIT"

# A number, so that a platform that forbids root can tell without a passwd file.
RUN install --directory --owner=10001 --group=10001 --mode=0750 /data
COPY --from=build /opt/lyftr /opt/lyftr

# SQLite spills large sorts to disk; /data is the one place where a read-only container can write much.
ENV PATH=/opt/lyftr/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=8000 \
    DATABASE_URL=sqlite:////data/app.db \
    SQLITE_TMPDIR=/data

USER 10001:10001
VOLUME ["/data"]
EXPOSE 8000

# Our own command: slim images have no curl, and it knows PORT.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["lyftr-server", "healthcheck"]

ENTRYPOINT ["lyftr-server"]
CMD ["serve"]
