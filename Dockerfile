# One image for the three programs: the BFF (`serve`, what it does by itself), the example API (`api`) and the
# local identity provider (`idp`, for development only).

FROM python:3.11-slim-bookworm AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/bff
WORKDIR /src

# Dependencies first: this layer is built anew only when the lock changes. Wheels alone, so that nothing that
# was downloaded runs before its hash was checked, and no compiler is needed.
COPY requirements.lock ./
RUN /opt/bff/bin/pip install --require-hashes --only-binary :all: -r requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY bff bff
COPY templates templates
COPY static static
RUN /opt/bff/bin/pip install --no-deps --no-build-isolation . \
    && /opt/bff/bin/pip uninstall -q -y hatchling editables pip


FROM python:3.11-slim-bookworm

# A number that no account of the host is likely to have. /state is the local provider's, for its accounts.
RUN groupadd --gid 10001 bff \
    && useradd --uid 10001 --gid bff --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin bff \
    && install -d -o bff -g bff -m 0700 /state

COPY --from=build /opt/bff /opt/bff
COPY deploy/probe.py /opt/bff/probe.py

# Inside a container, loopback is nobody's; which ports anybody reaches is settled by who publishes them.
ENV PATH=/opt/bff/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BFF_BIND=0.0.0.0:5003 \
    API_BIND=0.0.0.0:5001 \
    IDP_BIND=0.0.0.0:5002

USER 10001:10001
EXPOSE 5001 5002 5003
ENTRYPOINT ["bff"]
CMD ["serve"]
