"""Benchmarks of lobar, in processes with the settings of its jobs."""

from lobar.core import runtime

runtime.prepare()  # here, because modules of this package import Keras
