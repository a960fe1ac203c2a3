"""A training experiment as named fields: from a YAML file, with single values changed on the command line."""

import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from enum import EnumType, StrEnum
from importlib.resources import files
from typing import Annotated, Any

import msgspec

from lobar.core.errors import InputError
from lobar.imaging.sampling import Sampling
from lobar.storage import objects

Count = Annotated[int, msgspec.Meta(ge=1)]
ENCODER_DEPTH = 5  # times that an encoder halves the image
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Network(StrEnum):
    """The networks of `networks.py`."""

    NOTEBOOK = "notebook"
    UNET = "unet"


class Encoder(StrEnum):
    """The encoders of `encoders.py`: EfficientNet-Lite with its own weights, and some of Keras' networks."""

    NONE = "none"
    EFFICIENTNETLITE0 = "efficientnetlite0"
    EFFICIENTNETLITE1 = "efficientnetlite1"
    EFFICIENTNETLITE2 = "efficientnetlite2"
    CONVNEXTTINY = "convnexttiny"
    EFFICIENTNETV2B0 = "efficientnetv2b0"
    EFFICIENTNETV2S = "efficientnetv2s"
    MOBILENETV3LARGE = "mobilenetv3large"
    MOBILENETV3SMALL = "mobilenetv3small"
    RESNET50 = "resnet50"


class Loss(StrEnum):
    """The losses of `losses.py`: `notebook` takes the IoU over a whole batch, `image` that of each image."""

    NOTEBOOK = "notebook"
    IMAGE = "image"


class Schedule(StrEnum):
    """When the cosine of the learning rate falls: after each epoch, as in the notebook, or each step."""

    EPOCH = "epoch"
    STEP = "step"


class Precision(StrEnum):
    """Keras' policies for the arithmetic of a training."""

    FLOAT32 = "float32"
    MIXED_BFLOAT16 = "mixed_bfloat16"
    MIXED_FLOAT16 = "mixed_float16"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that a training depends on besides its dataset and its seed.

    A new field has a default that keeps what existing recipes do.
    """

    network: Network
    channels: Count  # of the first layer; with an encoder: of the decoder's finest grid
    blocks: Count  # residual blocks in a stage; with an encoder: at each of the decoder's grids
    depth: Annotated[
        int, msgspec.Meta(ge=1, le=6)
    ]  # number of stages, each at half the size; an encoder has 5
    image_size: Annotated[int, msgspec.Meta(ge=16)]  # pixels of a side that the network sees
    sampling: Sampling  # how an image is brought to that size
    epochs: Count  # passes over the training images
    # epochs in which the cosine falls from learning_rate to 0; 0: as many as epochs
    schedule_epochs: Annotated[int, msgspec.Meta(ge=0)]
    learning_rate: Annotated[float, msgspec.Meta(ge=0)]
    batch_size: Count
    loss: Loss
    positive_fraction: Share  # share of positive images in an epoch; 0: the natural ratio
    precision: Precision  # of the arithmetic in training
    init: str = ""  # URL of a trained model from whose weights the training starts; empty: not from a model
    encoder: Encoder = Encoder.NONE  # the half of a unet that reduces the image; none: residual stages
    # URL of a file of Keras with the weights that the encoder starts from; empty: EfficientNet-Lite starts
    # from those of its package, any other encoder from random weights
    encoder_weights: str = ""
    schedule: Schedule = Schedule.EPOCH  # when the learning rate falls


def names() -> list[str]:
    """The names of the recipes in this package."""
    folder = files("lobar.training") / "recipes"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def load(name: str, changes: str = "") -> Recipe:
    """A recipe by its name or by the URL of a YAML file, with `changes` as `key=value,key=value`.

    Raises InputError for an unknown recipe, an unknown or missing field, and a value of the wrong type or out
    of range; the text lists what is possible.
    """
    if name in names():
        text = (files("lobar.training") / "recipes" / f"{name}.yaml").read_text()
    elif "/" in name or name.endswith((".yaml", ".yml")):
        text = objects.read(name).decode(errors="replace")
    else:
        raise InputError(
            f"recipe {name}: there is no such recipe; choose {', '.join(names())}, or the URL of a YAML file",
            setting="recipe",
        )
    values = _mapping(text, f"recipe {name}")
    recipe = _recipe(values | _changes(changes), f"recipe {name}")
    _check_encoder(recipe, f"recipe {name}")
    init, encoder_weights = (
        objects.absolute(url) if url else "" for url in (recipe.init, recipe.encoder_weights)
    )
    return replace(recipe, init=init, encoder_weights=encoder_weights)


def _mapping(text: str, where: str) -> dict[str, Any]:
    import yaml  # only training reads recipes; plan and predict need the class alone

    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise InputError(f"{where}: found no fields; write one `name: value` per line")
    return values


def _changes(text: str) -> dict[str, Any]:
    changes = {}
    for change in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = change.partition("=")
        if not equals:
            raise InputError(f"change {change!r}: write key=value,key=value", setting="set")
        changes[key.strip()] = _mapping(f"value: {value}", f"change {change!r}")["value"]
    return changes


def _recipe(values: Mapping[str, Any], where: str) -> Recipe:
    known = [field.name for field in fields(Recipe)]
    if unknown := [str(key) for key in values if key not in known]:
        raise InputError(
            f"{where}: there is no field {', '.join(unknown)}; the fields are {', '.join(known)}"
        )
    hints = typing.get_type_hints(Recipe, include_extras=True)
    converted = {}
    for name, value in values.items():
        try:
            # not strict: YAML 1.1 reads 1e-3 as a string
            converted[name] = msgspec.convert(value, hints[name], strict=False)
        except msgspec.ValidationError:
            raise InputError(f"{where}: {name} is {value!r}; it must be {_possible(hints[name])}") from None
    required = [field.name for field in fields(Recipe) if field.default is MISSING]
    if missing := [name for name in required if name not in converted]:
        raise InputError(f"{where}: {', '.join(missing)} missing; a recipe must set all of them")
    return Recipe(**converted)


def _check_encoder(recipe: Recipe, where: str) -> None:
    """Raise InputError for values that do not go with the recipe's encoder, or with none."""
    encoder = recipe.encoder
    if encoder is Encoder.NONE:
        if recipe.encoder_weights:
            raise InputError(f"{where}: encoder_weights needs an encoder; set encoder, too")
        return
    if recipe.network is not Network.UNET:
        raise InputError(f"{where}: encoder {encoder} needs the network unet, not {recipe.network}")
    if recipe.depth != ENCODER_DEPTH:
        raise InputError(
            f"{where}: depth {recipe.depth}: an encoder halves the image 5 times; set depth to 5"
        )
    if recipe.image_size % 2**ENCODER_DEPTH:
        raise InputError(
            f"{where}: image_size {recipe.image_size} is not a multiple of 32, as an encoder needs"
        )
    if recipe.encoder_weights and encoder.startswith("efficientnetlite"):
        raise InputError(f"{where}: {encoder} has weights of its own; leave encoder_weights empty")
    if recipe.encoder_weights and not recipe.encoder_weights.endswith(".h5"):
        raise InputError(
            f"{where}: encoder_weights {recipe.encoder_weights} does not end in .h5; it must be a file that "
            "Keras has saved with save_weights"
        )


def _possible(hint: Any) -> str:
    """The possible values of a field, in words."""
    if isinstance(hint, EnumType):
        return " or ".join(hint)
    if typing.get_origin(hint) is not Annotated:
        return "a string"
    kind, meta = typing.get_args(hint)
    bounds = {"at least": meta.ge, "at most": meta.le}
    words = [f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None]
    return " and ".join([f"a {'whole ' * (kind is int)}number, {words[0]}", *words[1:]])
