"""Keras on its backend, imported quietly and within the CPUs this process may use."""

import os

from lobar import console
from lobar.parallel import cpus

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# TensorFlow counts the node's CPUs, not the pod's
for pool in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(pool, str(cpus()))

with console.quiet():
    import keras
    from keras import layers, ops

    ops.zeros(1)  # looks for devices now; its messages would come in mid-run otherwise

__all__ = ["keras", "layers", "ops"]
