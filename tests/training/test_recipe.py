from dataclasses import MISSING, asdict, fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobar.core.errors import AbsentError, InputError
from lobar.imaging.sampling import Sampling
from lobar.training.recipe import Loss, Network, Precision, Recipe, load, names
from tests.conftest import Run

ON_RESNET = "network=unet,encoder=resnet50,depth=5"


def test_every_recipe_of_lobar_loads() -> None:
    assert names() == ["demo", "notebook", "rsna"]
    for name in names():
        assert load(name).init == ""


def test_the_notebook_recipe_equals_the_notebooks_settings() -> None:
    assert load("notebook") == Recipe(
        network=Network.NOTEBOOK,
        channels=32,
        blocks=2,
        depth=4,
        image_size=256,
        sampling=Sampling.NOTEBOOK,
        epochs=10,
        schedule_epochs=25,
        learning_rate=0.001,
        batch_size=32,
        loss=Loss.NOTEBOOK,
        positive_fraction=0,
        precision=Precision.FLOAT32,
    )


def test_changes_replace_single_fields() -> None:
    before, after = (
        asdict(load("notebook")),
        asdict(load("notebook", "epochs=4, learning_rate=2e-3,network=unet")),
    )
    assert after == before | {"epochs": 4, "learning_rate": 0.002, "network": "unet"}


def test_a_recipe_is_read_from_any_url(tmp_path: Path) -> None:
    optional = {field.name for field in fields(Recipe) if field.default is not MISSING}
    lines = [f"{name}: {value}" for name, value in asdict(load("notebook")).items() if name not in optional]
    (tmp_path / "mine.yaml").write_text("\n".join(lines))
    assert load(str(tmp_path / "mine.yaml")) == load(f"file://{tmp_path}/mine.yaml") == load("notebook")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("epoch=4", "there is no field epoch; the fields are network, channels, blocks, depth, image_size, "),
        ("epochs=many", "epochs is 'many'; it must be a whole number, at least 1"),
        ("epochs=0", "epochs is 0; it must be a whole number, at least 1"),
        ("epochs=2.5", "epochs is 2.5; it must be a whole number, at least 1"),
        ("depth=9", "depth is 9; it must be a whole number, at least 1 and at most 6"),
        ("positive_fraction=1.5", "positive_fraction is 1.5; it must be a number, at least 0 and at most 1"),
        ("learning_rate=-1", "learning_rate is -1; it must be a number, at least 0"),
        ("sampling=bilinear", "sampling is 'bilinear'; it must be area or notebook"),
        ("precision=", "precision is None; it must be float32 or mixed_bfloat16 or mixed_float16"),
        ("encoder=vgg16", "encoder is 'vgg16'; it must be none or efficientnetlite0 or "),
        ("encoder=resnet50,depth=5", "encoder resnet50 needs the network unet, not notebook"),
        ("network=unet,encoder=resnet50", "depth 4: an encoder halves the image 5 times; set depth to 5"),
        (f"{ON_RESNET},image_size=48", "image_size 48 is not a multiple of 32, as an encoder needs"),
        (f"{ON_RESNET},encoder_weights=w.pth", "w.pth does not end in .h5; it must be a file that Keras"),
        (
            "network=unet,encoder=efficientnetlite0,depth=5,encoder_weights=w.h5",
            "efficientnetlite0 has weights of its own; leave encoder_weights empty",
        ),
        ("encoder_weights=w.h5", "encoder_weights needs an encoder; set encoder, too"),
        ("epochs", "change 'epochs': write key=value,key=value"),
        ("epochs=[1", "change 'epochs=[1': not YAML"),
    ],
)
def test_a_wrong_change_lists_the_possible_values(change: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        load("notebook", change)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 3\n", "network, channels, blocks, depth, image_size, sampling, schedule_epochs, "),
        ("- epochs\n", "found no fields; write one `name: value` per line"),
        ("", "found no fields"),
        ("epochs: [", "not YAML"),
    ],
)
def test_a_wrong_recipe_file_is_rejected(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        load(str(tmp_path / "r.yaml"))
    assert message in str(error.value)


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="recipe best: there is no such recipe; choose demo, notebook, rsna"):
        load("best")
    with pytest.raises(AbsentError, match=r"nowhere\.yaml: there is no such object"):
        load("nowhere.yaml")


def test_train_exits_with_2_for_a_wrong_recipe_before_it_loads_data(run: Run, tmp_path: Path) -> None:
    options = ["train", "--dataset", tmp_path, "--out", tmp_path / "m", "--recipe", "demo"]
    status, _, error = run(*options, "--set", "epoch=4")
    assert status == 2
    assert error.startswith("error: recipe demo: there is no field epoch; the fields are ")
    assert not (tmp_path / "m").exists()


@given(st.dictionaries(st.sampled_from([field.name for field in fields(Recipe)]), st.text()))
def test_any_change_gives_a_recipe_or_an_input_error(changes: dict[str, str]) -> None:
    try:
        recipe = load("demo", ",".join(f"{name}={value}" for name, value in changes.items()))
    except InputError:
        return
    assert isinstance(recipe, Recipe)
