# siamrpn on a CPU, as a user without rights, with an OpenCV that needs no screen:
#   docker build -t siamrpn .
#   docker run --rm siamrpn doctor
#   docker run --rm -v "$PWD:/work" -u "$(id -u):$(id -g)" siamrpn track --video film.mp4 --box 20,40,64,48
# Training by worker processes shares memory: add --shm-size=2g.
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY siamrpn_jax siamrpn_jax
ARG EXTRAS=onnx,train,video
# One step, one layer: the OpenCV that goes leaves nothing behind.
RUN python -m venv /opt/siamrpn \
    && /opt/siamrpn/bin/pip install --no-cache-dir ".[${EXTRAS}]" \
    && /opt/siamrpn/bin/pip uninstall --yes opencv-python \
    && /opt/siamrpn/bin/pip install --no-cache-dir "opencv-python-headless>=4.12,<6"

FROM python:3.12-slim
COPY --from=build /opt/siamrpn /opt/siamrpn
RUN useradd --uid 1000 siamrpn && install --directory --mode=1777 /work /cache
# Whoever runs it can write to /cache, and keeps what was compiled by -v cache:/cache.
ENV PATH=/opt/siamrpn/bin:$PATH \
    HOME=/cache \
    JAX_COMPILATION_CACHE_DIR=/cache/jax \
    PYTHONUNBUFFERED=1
USER 1000
WORKDIR /work
ENTRYPOINT ["siamrpn"]
CMD ["--help"]
