"""A batch that several GPUs share, on logical CPUs in their place, since not every machine has GPUs."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lobar.core.errors import InputError
from lobar.training import distributed

TRAINING = """
import sys
import numpy as np
import tensorflow as tf

count, batch_size = int(sys.argv[1]), int(sys.argv[2])
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * count
)
devices = tf.config.list_logical_devices("CPU")
tf.config.list_logical_devices = lambda kind=None: devices

from lobar.core.boxes import Box
from lobar.data.index import Exam
from lobar.training import recipe, trainer
from lobar.training.checkpoints import Checkpoints
from lobar.training.sampler import Split

def split(images, seed):
    boxes = [(Box(4, 4, 20, 16),) if i % 2 else () for i in range(images)]
    exams = [Exam(f"p{i}", "", "", 0, 32, 32, "", boxes[i], i % 2, f"p{i}", "train") for i in range(images)]
    levels = np.random.default_rng(seed).integers(0, 256, (images, 32, 32), np.uint8)
    return Split(exams, levels)

saved = Checkpoints(sys.argv[3])
for epochs in (2, 3):  # the second continues where the first ended
    chosen = recipe.load(
        "demo",
        f"image_size=32,channels=2,blocks=1,depth=2,epochs={epochs},schedule_epochs=3,loss=image,"
        f"batch_size={batch_size},learning_rate=0.001,positive_fraction=0",
    )
    model = trainer.compile_network(chosen, 0)
    history = trainer.fit(model, split(30, 0), split(10, 1), chosen, 0, saved)
assert len(history) == 3 and model.distribute_strategy.num_replicas_in_sync == count
np.savez(sys.argv[4], history=[epoch.loss for epoch in history], *model.get_weights())
"""


def test_a_shared_batch_trains_as_on_one_gpu_and_resumes(tmp_path: Path) -> None:
    results = []
    # two share 4 of 5 images
    for count, batch_size in ((1, 4), (2, 5)):
        out = tmp_path / f"{count}.npz"
        command = [sys.executable, "-c", TRAINING, count, batch_size, tmp_path / f"checkpoints{count}", out]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        results.append(np.load(out))
    assert "30 training images for 2 GPUs: the batch shrinks from 5 to 4" in done.stderr
    for name in results[0].files:
        np.testing.assert_allclose(results[0][name], results[1][name], atol=1e-5)


def test_a_batch_that_gives_a_gpu_nothing_ends_the_training() -> None:
    four = SimpleNamespace(distribute_strategy=SimpleNamespace(num_replicas_in_sync=4))
    with pytest.raises(InputError, match="batch_size 2 and 28 training images for 4 GPUs"):
        distributed.batch_size(four, 2, 28)
