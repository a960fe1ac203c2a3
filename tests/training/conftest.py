"""A small dataset, and the options of a training on it that takes seconds."""

from pathlib import Path

import pytest

from jobs.__main__ import main
from lobar.storage import objects
from lobar.storage.layout import Dataset
from tests.conftest import make_dicom, smooth_noise

FIELDS = "sampling=area,schedule_epochs=0,image_size=32,channels=2,blocks=1,depth=2,batch_size=4"


def small(changes: str = "epochs=1") -> list[str]:
    """The options of a small training."""
    return ["--recipe", "notebook", "--set", f"{FIELDS},positive_fraction=0.5,learning_rate=0.001,{changes}"]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A dataset of 40 images of 64 x 64, every other one with one box."""
    folder: Path = tmp_path_factory.mktemp("data")
    rows = ["patientId,x,y,width,height,Target"]
    (folder / "images").mkdir()
    for i in range(40):
        (folder / f"images/p{i}.dcm").write_bytes(make_dicom(smooth_noise(64, 64, i)))
        rows.append(f"p{i},8,8,{20 + i % 5},16,1" if i % 2 else f"p{i},,,,,0")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    labels = [f"--labels={folder}/labels.csv", f"--images={folder}/images", "--valid-fraction=0.3"]
    assert main(["label-index", *labels, f"--out={folder}/d"]) == 0
    return Dataset(objects.absolute(str(folder / "d")))
