# One application, two images:
#   --target jobs     every job but train; predicts on a CPU
#   --target train    the same with TensorFlow: trains, and predicts on a GPU
# --build-arg TRAIN=train-cuda brings CUDA's libraries into `train`; the driver is the node's.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS jobs-packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements/jobs.txt /tmp/
# What is removed is not loaded by any job: OpenVINO for Intel's GPU and NPU, Arrow's RPC, headers and tests
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install -q --require-hashes -r /tmp/jobs.txt \
    && /opt/venv/bin/pip uninstall -q -y pip setuptools \
    && find /opt/venv -depth \( -name 'libopenvino_intel_[gn]pu_plugin*' -o -name 'libarrow_flight*' \
        -o -type d -name tests -o -type d -name include \) -exec rm -r {} +

FROM ${BASE} AS train-packages
ARG TRAIN=train
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements/${TRAIN}.txt /tmp/
# Headers, for building one's own operations, are a fifth of TensorFlow
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install -q --require-hashes -r /tmp/${TRAIN}.txt \
    && find /opt/venv -depth -type d -name include -exec rm -r {} +

FROM ${BASE} AS runtime
# A pod may write to /tmp alone; NumPy's BLAS, hardly used, would keep a thread for each of the node's CPUs
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app/lib PYTHONUNBUFFERED=1 HOME=/tmp OPENBLAS_NUM_THREADS=1
WORKDIR /app
USER 10001:10001
ENTRYPOINT ["python", "-m", "jobs"]
LABEL org.opencontainers.image.title="lobar" \
      org.opencontainers.image.description="Finds pneumonia on chest X-rays in batches. Not for clinical use." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"

FROM runtime AS train
COPY --from=train-packages /opt/venv /opt/venv
COPY jobs jobs
COPY lib lib

FROM runtime AS jobs
COPY --from=jobs-packages /opt/venv /opt/venv
COPY jobs jobs
COPY lib lib
