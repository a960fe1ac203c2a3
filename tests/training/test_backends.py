"""Networks, losses and training on Keras' other backends, compared with TensorFlow."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from lobar.training import networks
from lobar.training.recipe import load

# trains two epochs, and a third one after it resumed, from given weights
TRAINING = """
import sys
import numpy as np
from lobar.core.boxes import Box
from lobar.data.index import Exam
from lobar.training import recipe, trainer
from lobar.training.checkpoints import Checkpoints
from lobar.training.keras_backend import keras, ops
from lobar.training.sampler import Split

def split(images, seed):
    boxes = [(Box(4, 4, 20, 16),) if i % 2 else () for i in range(images)]
    exams = [Exam(f"p{i}", "", "", 0, 32, 32, "", boxes[i], i % 2, f"p{i}", "train") for i in range(images)]
    return Split(exams, np.random.default_rng(seed).integers(0, 256, (images, 32, 32), np.uint8))

changes, arrays, out, folder = sys.argv[1:]
with np.load(arrays) as file:
    weights = [file[str(i)] for i in range(len(file.files))]
valid = split(10, 1)
for epochs in (2, 3):
    chosen = recipe.load("notebook", f"{changes},epochs={epochs}")
    model = trainer.compile_network(chosen, 0)
    model.set_weights(weights)
    maps = ops.convert_to_numpy(model(valid.images[..., None]))
    history = trainer.fit(model, split(30, 0), valid, chosen, 0, Checkpoints(folder))
losses = [[epoch.loss, epoch.val_loss] for epoch in history]
np.savez(out, maps=maps, losses=losses)
print(keras.backend.backend())
"""


@pytest.mark.parametrize("network", networks.NETWORKS)
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_training_on_another_backend_equals_tensorflow(backend: str, network: str, tmp_path: Path) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed; lobar itself runs Keras on TensorFlow")
    changes = f"network={network},sampling=area,image_size=32,channels=4,blocks=1,depth=3,batch_size=8"
    weights = networks.create(load("notebook", changes)).get_weights()
    np.savez(tmp_path / "weights.npz", **{str(i): array for i, array in enumerate(weights)})
    results = {}
    for name in ("tensorflow", backend):
        out = tmp_path / f"{name}.npz"
        command = [sys.executable, "-c", TRAINING, changes, tmp_path / "weights.npz", out, tmp_path / name]
        environment = os.environ | {"KERAS_BACKEND": name}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        assert done.stdout.split()[-1] == name
        results[name] = np.load(out)
    for name in ("maps", "losses"):
        np.testing.assert_allclose(results[backend][name], results["tensorflow"][name], atol=1e-4)
