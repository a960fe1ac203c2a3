"""The record of train."""

from dataclasses import dataclass
from typing import ClassVar

from lobar.core.rejections import Rejection
from lobar.core.version import code_version
from lobar.data.record import Manifest, Profile
from lobar.storage import records
from lobar.storage.layout import Dataset, Model
from lobar.storage.records import Record
from lobar.training import pretrained
from lobar.training.recipe import Recipe


@dataclass(frozen=True)
class ModelFiles:
    """The SHA-256 of each file of a trained network; bfloat16 uses the files of float32."""

    keras: str
    float32_network: str
    float32_weights: str
    int8_network: str
    int8_weights: str

    def openvino(self, precision: str) -> tuple[str, str]:
        """Network and weights for OpenVINO in a precision."""
        if precision == "int8":
            return self.int8_network, self.int8_weights
        return self.float32_network, self.float32_weights


@dataclass(frozen=True)
class Epoch:
    """One epoch of a training: its first learning rate, and metrics over training and validation images."""

    epoch: int
    learning_rate: float
    loss: float
    accuracy: float
    mean_iou: float
    val_loss: float
    val_accuracy: float
    val_mean_iou: float


@dataclass(frozen=True)
class TrainingInputs:
    """What a model was trained from.

    dataset, index: its URL and the SHA-256 of its index. init_weights: the SHA-256 of the weights of the
    model that `recipe.init` names, empty without one. encoder_weights: the SHA-256 of the file of weights
    that the encoder starts from, empty without one.
    """

    dataset: str
    index: str
    recipe: Recipe
    init_weights: str
    seed: int
    lobar: str
    encoder_weights: str = ""


@dataclass(frozen=True, kw_only=True)
class Training(Record):
    """A trained model: its files, the SHA-256 of its history, a profile of its images, rejected images."""

    MADE_BY: ClassVar[str] = "train"

    inputs: TrainingInputs
    files: ModelFiles
    history: str
    parameters: int
    profile: Profile
    rejected: list[Rejection]


def inputs_of(dataset: Dataset, recipe: Recipe, seed: int) -> TrainingInputs:
    """What a training would be made from. Raises InputError if an object that it needs is missing."""
    initial = records.read(Model(recipe.init).training, Training) if recipe.init else None
    return TrainingInputs(
        dataset=dataset.url,
        index=records.read(dataset.manifest, Manifest).index,
        recipe=recipe,
        # not the Keras file, which holds the time
        init_weights=initial.files.float32_weights if initial else "",
        seed=seed,
        lobar=code_version(),
        encoder_weights=pretrained.sha256(recipe),
    )
