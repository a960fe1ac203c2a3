# One application, two images:
#   --target jobs     every job except train; predicts on a CPU
#   --target train    the same with TensorFlow: training, and prediction on a GPU
# --build-arg TRAIN=train-cuda adds the CUDA libraries to `train`; the node provides the driver.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS jobs-packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements/jobs.txt /tmp/
# No job uses what is removed: OpenVINO's plugins for Intel GPUs and NPUs, Arrow Flight, headers and tests
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install -q --require-hashes -r /tmp/jobs.txt \
    && /opt/venv/bin/pip uninstall -q -y pip setuptools \
    && find /opt/venv -depth \( -name 'libopenvino_intel_[gn]pu_plugin*' -o -name 'libarrow_flight*' \
        -o -type d -name tests -o -type d -name include \) -exec rm -r {} +

FROM ${BASE} AS train-packages
ARG TRAIN=train
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements/${TRAIN}.txt /tmp/
# The headers, a fifth of TensorFlow's size, are needed only to compile custom operations
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install -q --require-hashes -r /tmp/${TRAIN}.txt \
    && find /opt/venv -depth -type d -name include -exec rm -r {} +

FROM ${BASE} AS runtime
# A pod may write only to /tmp. NumPy's BLAS is hardly used, but would start a thread for each CPU of the node
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app/lib PYTHONUNBUFFERED=1 HOME=/tmp OPENBLAS_NUM_THREADS=1
WORKDIR /app
USER 10001:10001
ENTRYPOINT ["python", "-m", "jobs"]
LABEL org.opencontainers.image.title="lobar" \
      org.opencontainers.image.description="Batch detection of pneumonia on chest X-rays. Not for clinical use." \
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
