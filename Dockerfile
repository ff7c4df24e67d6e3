# One image for a tracking server and for workers; docs/how-to/remote.md has the commands.
# docker build -t moola . && docker run --rm moola moola pretrain --config smoke
FROM python:3.11-slim-bookworm

# A build argument: the index of PyTorch's CPU wheels makes the image much smaller. Empty: the wheels of PyPI, with CUDA.
ARG PIP_EXTRA_INDEX_URL=""

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

RUN useradd --create-home --uid 10001 moola
WORKDIR /app
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE requirements.lock ./
COPY configs ./configs
COPY moola_mlflow ./moola_mlflow
RUN pip install --no-cache-dir -c requirements.lock ".[postgresql,remote,cloud]"

# A worker's runs, checkpoints and outputs are in /data: mount a volume there.
RUN mkdir /data && chown moola /data
USER 10001
WORKDIR /data
EXPOSE 5000

# The server, with a database on the volume; a worker names another command, such as `moola sweep`.
CMD ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000", "--backend-store-uri", "sqlite:////data/mlflow.db", "--artifacts-destination", "/data/mlartifacts"]
