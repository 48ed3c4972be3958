# docker build -t ez_jax .                                   for CPUs
# docker build -t ez_jax --build-arg EXTRA=cuda12 .          for NVIDIA GPUs (the wheels bring CUDA 12)
# docker run --rm -v "$PWD/runs:/data/runs" ez_jax train game=Catch
# docker run --rm --gpus all -v "$PWD/runs:/data/runs" ez_jax train game=Breakout
FROM python:3.12-slim

ARG EXTRA=""
WORKDIR /source
COPY pyproject.toml setup.cfg requirements.txt README.md LICENSE ./
COPY ez_jax ez_jax
# requirements.txt holds the versions that were tested.
RUN pip install --no-cache-dir -c requirements.txt ".${EXTRA:+[$EXTRA]}" && rm -r /source

WORKDIR /data
ENTRYPOINT ["ez_jax"]
CMD ["--help"]
