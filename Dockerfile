# Locum on a CPU: proxy, embedded student and distiller, with the pinned versions.
#
# torch: the CPU build where pip finds one. Tell pip where, or it takes the default build, several GB larger:
#   docker build --build-arg PIP_EXTRA_INDEX_URL=<PyTorch's CPU index> -t locum .

FROM python:3.11-slim-bookworm AS build
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/locum
ENV PATH=/opt/locum/bin:$PATH
WORKDIR /src

COPY requirements requirements
RUN pip install --quiet --no-deps --require-hashes -r requirements/runtime.txt \
 && PIP=pip sh requirements/torch.sh "$(grep '^torch==' requirements/runtime.in)"

COPY pyproject.toml README.md LICENSE ./
COPY router router
COPY distiller distiller
RUN pip install --quiet --no-deps --no-build-isolation .

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --create-home locum \
 && install -d -o locum -g locum /var/lib/locum /var/cache/locum
COPY --from=build /opt/locum /opt/locum
COPY policies /etc/locum/policies
ENV PATH=/opt/locum/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LITELLM_LOCAL_MODEL_COST_MAP=True \
    LOCUM_HOME=/var/lib/locum \
    LOCUM_CACHE=/var/cache/locum
USER locum
WORKDIR /etc/locum
VOLUME ["/var/lib/locum", "/var/cache/locum"]
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/health/live', timeout=2)"]
ENTRYPOINT ["locum"]
CMD ["up", "--policy", "policies/default.yaml", "--host", "0.0.0.0"]
