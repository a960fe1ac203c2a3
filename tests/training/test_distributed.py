"""A batch shared by several GPUs. Logical CPUs replace them, because not every machine has GPUs."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lobar.core.errors import InputError
from lobar.training import distributed

TRAINING = """
import logging
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
devices = tf.config.list_logical_devices("CPU")

from lobar.core.boxes import Box
from lobar.data.index import Exam
from lobar.training import recipe, trainer
from lobar.training.checkpoints import Checkpoints
from lobar.training.sampler import Split

logging.basicConfig(level=logging.INFO, format="%(message)s")

def split(images, seed):
    boxes = [(Box(4, 4, 20, 16),) if i % 2 else () for i in range(images)]
    exams = [Exam(f"p{i}", "", "", 0, 32, 32, "", boxes[i], i % 2, f"p{i}", "train") for i in range(images)]
    levels = np.random.default_rng(seed).integers(0, 256, (images, 32, 32), np.uint8)
    return Split(exams, levels)

# the second training on two GPUs continues from the checkpoint of the first
for gpus, batch_size, epochs in ((1, 4, 3), (2, 5, 2), (2, 5, 3)):
    tf.config.list_logical_devices = lambda kind=None: devices[:gpus]
    chosen = recipe.load(
        "notebook",
        f"sampling=area,image_size=32,channels=2,blocks=1,depth=2,epochs={epochs},schedule_epochs=3,loss=image,"
        f"batch_size={batch_size},learning_rate=0.001,positive_fraction=0",
    )
    model = trainer.compile_network(chosen, 0)
    saved = Checkpoints(str(Path(sys.argv[1], f"checkpoints{gpus}")))
    history = trainer.fit(model, split(30, 0), split(10, 1), chosen, 0, saved)
    assert len(history) == epochs and model.distribute_strategy.num_replicas_in_sync == gpus
    results = Path(sys.argv[1], f"{gpus}.npz")
    np.savez(results, history=[epoch.loss for epoch in history], *model.get_weights())
"""


def test_training_on_two_gpus_equals_one_gpu_and_resumes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRAINING, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # two GPUs share 4 of 5 images
    assert "30 training images for 2 GPUs: the batch shrinks from 5 to 4" in done.stderr
    assert "resumed after epoch 2 of 3" in done.stderr
    one, two = (np.load(tmp_path / f"{gpus}.npz") for gpus in (1, 2))
    for name in one.files:
        np.testing.assert_allclose(one[name], two[name], atol=1e-5)


def test_a_batch_with_fewer_images_than_gpus_is_rejected() -> None:
    four = SimpleNamespace(distribute_strategy=SimpleNamespace(num_replicas_in_sync=4))
    with pytest.raises(InputError, match="batch_size 2 and 28 training images for 4 GPUs"):
        distributed.batch_size(four, 2, 28)
