"""A chest-like data set in the shape of the RSNA challenge, so that anyone can run everything.

Every image depends on (seed, subset, index) alone: not on how many are made, nor on how many processes make
them. So the first n images of a set are the same for any size. They are drawings and show no patient.
"""

import io
import json
import multiprocessing
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGBaseline8Bit, SecondaryCaptureImageStorage

from lobar.core.boxes import Box
from lobar.core.concurrency import cpus
from lobar.core.console import progress
from lobar.core.errors import InputError
from lobar.core.version import __version__
from lobar.storage import objects
from lobar.synthetic.anatomy import Map, Person, draw_body, draw_person, draw_pose
from lobar.synthetic.findings import draw_opacities, draw_others, draw_patches

SIZE = 1024
JPEG_QUALITY = 92
# RSNA's shares of AP views among positives and negatives (its header table); prevalence per view follows
AP_OF_POSITIVES = 0.78
AP_OF_NEGATIVES = 0.36
# 26,684 exams of 11,440 persons: an exam is of a new person with this probability
NEW_PERSON = 0.43
# a later exam's person is one of so many last exams', so that nobody's share grows with the set
LAST_EXAMS = 60
PIXEL_SPACINGS = ("0.143", "0.168", "0.139", "0.171", "0.194311")
SUBSETS = ("train", "test")


@dataclass(frozen=True)
class Options:
    """What a demo data set is made of: images to train and to test on, share with opacities, seed."""

    train: int
    test: int
    prevalence: float
    seed: int


@dataclass(frozen=True)
class Exam:
    """One image's identity and header values, without its pixels."""

    subset: str
    index: int
    seed: int
    person: int
    patient_id: str
    target: bool
    view: str

    @property
    def group(self) -> str:
        return f"{self.person:08d}"

    def random(self, what: int) -> np.random.Generator:
        """This exam's randomness; `what` keeps apart what may change without the rest."""
        return np.random.default_rng([self.seed, SUBSETS.index(self.subset), self.index, what])

    def draw_person(self) -> Person:
        return draw_person(np.random.default_rng([self.seed, SUBSETS.index(self.subset), self.person, 99]))


def list_exams(subset: str, count: int, options: Options) -> list[Exam]:
    """The first `count` exams of `subset` (train or test); persons have 2.3 exams on average, a few many."""
    exams: list[Exam] = []
    persons = 0
    for index in range(count):
        random = np.random.default_rng([options.seed, SUBSETS.index(subset), index, 0])
        fresh, earlier, target, view = random.random(4)
        if not exams or fresh < NEW_PERSON:
            person, persons = persons, persons + 1
        else:
            person = exams[-1 - int(earlier * min(len(exams), LAST_EXAMS))].person
        positive = bool(target < options.prevalence)
        exams.append(
            Exam(
                subset=subset,
                index=index,
                seed=options.seed,
                person=person,
                patient_id=str(uuid.UUID(bytes=random.bytes(16), version=4)),
                target=positive,
                view="AP" if view < (AP_OF_POSITIVES if positive else AP_OF_NEGATIVES) else "PA",
            )
        )
    return exams


def draw_film(exam: Exam) -> tuple[NDArray[np.uint8], list[Box]]:
    """Pixels (1024, 1024) uint8, MONOCHROME2, and the boxes of the opacities in them."""
    random = exam.random(1)
    person = exam.draw_person()
    pose = draw_pose(random, exam.view)
    map_, inside = draw_body(person, pose, random)
    boxes, covered = draw_opacities(map_, inside, pose, random) if exam.target else ([], np.zeros_like(map_))
    draw_patches(map_, inside, pose, covered, random)
    draw_others(map_, inside, person, pose, random)
    return _expose(map_, exam.view, random), boxes


def _expose(map_: Map, view: str, random: np.random.Generator) -> NDArray[np.uint8]:
    """Film of 1024 pixels from an attenuation map of 512: contrast, exposure, scatter and grain."""
    contrast = random.uniform(0.62, 0.9) if view == "AP" else random.uniform(0.8, 1.05)
    level = random.uniform(0.02, 0.2) if view == "AP" else random.uniform(0.0, 0.08)
    shown = np.clip(map_, 0, None) ** random.uniform(0.85, 1.35) * contrast + level
    tilt = np.linspace(-0.5, 0.5, map_.shape[0], dtype=np.float32) * random.normal(0, 0.06)
    shown += tilt[:, None] + (tilt * random.normal(0, 0.6))[None, :]
    small = np.clip(shown * 235, 0, 255).astype(np.uint8)
    film = cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    y, x = random.integers(0, SIZE, 2)
    gain = float(random.uniform(0.6, 1.25))
    # one pass over the pixels: add the centred grain, scaled and saturating
    grainy = cv2.addWeighted(film, 1.0, _film_grain()[y : y + SIZE, x : x + SIZE], gain, -128.0 * gain)
    return np.asarray(grainy, np.uint8)


@cache
def _film_grain() -> NDArray[np.uint8]:
    plane = np.random.default_rng(7).standard_normal((2 * SIZE, 2 * SIZE)).astype(np.float32)
    plane = plane + 4 * cv2.GaussianBlur(plane, (0, 0), 1.1)
    return np.clip(128 + 2.4 * plane / plane.std(), 0, 255).round().astype(np.uint8)


def encode_dicom(pixels: NDArray[np.uint8], exam: Exam) -> bytes:
    """A JPEG Baseline DICOM file of `pixels` with the header fields of the challenge's files."""
    coded, frame = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not coded:
        raise RuntimeError(f"OpenCV could not encode image {exam.patient_id}")
    # the challenge writes ages as '51', which the standard does not allow
    with config.disable_value_validation():
        dataset = _header(exam)
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.PixelData = encapsulate([frame.tobytes()])
        file = io.BytesIO()
        dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _header(exam: Exam) -> Dataset:
    random = exam.random(2)
    person = exam.draw_person()
    root = f"1.2.826.0.1.3680043.8.498.{int.from_bytes(random.bytes(8), 'big')}"
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(f"{root}.3")
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    spacing = PIXEL_SPACINGS[int(random.choice(5, p=[0.34, 0.33, 0.21, 0.07, 0.05]))]
    fields = {
        "SpecificCharacterSet": "ISO_IR 100",
        "SOPClassUID": SecondaryCaptureImageStorage,
        "SOPInstanceUID": f"{root}.3",
        "StudyDate": "19010101",
        "StudyTime": "000000.00",
        "AccessionNumber": "",
        "Modality": "CR",
        "ConversionType": "WSD",
        "ReferringPhysicianName": "",
        "SeriesDescription": f"view: {exam.view}",
        "PatientName": exam.patient_id,
        "PatientID": exam.patient_id,
        "PatientBirthDate": "",
        "PatientSex": person.sex,
        "PatientAge": str(person.age),
        "BodyPartExamined": "CHEST",
        "ViewPosition": exam.view,
        "StudyInstanceUID": f"{root}.1",
        "SeriesInstanceUID": f"{root}.2",
        "StudyID": "",
        "SeriesNumber": "1",
        "InstanceNumber": "1",
        "PatientOrientation": "",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelSpacing": [spacing, spacing],
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "LossyImageCompression": "01",
        "LossyImageCompressionMethod": "ISO_10918_1",
    }
    for name, value in fields.items():
        setattr(dataset, name, value)
    return dataset


def make(out: str, options: Options, processes: int | None = None) -> str:
    """Make the data set under the URL `out` and return one line that says what was made.

    `processes` is how many draw at once, by default as many as this process may use CPUs. `demo.json` comes
    last: a folder that has it is whole. Raises InputError where it names other options.
    """
    done = objects.join(out, "demo.json")
    asked = {"lobar": __version__, **asdict(options)}
    if objects.exists(done):
        found = json.loads(objects.read(done))
        if found["options"] != asked:
            raise InputError(
                f"{done}: made with {_words(found['options'])}, asked are {_words(asked)}; "
                "choose another --out or remove the folder"
            )
        return f"already there: {_summary(found['counts'])} in {out}"
    exams = [exam for subset in SUBSETS for exam in list_exams(subset, getattr(options, subset), options)]
    truth = list(progress(_publish_all(out, exams, processes or cpus()), len(exams), "demo images"))
    train = [(exam, boxes) for exam, boxes in zip(exams, truth, strict=True) if exam.subset == "train"]
    objects.publish(objects.join(out, "train_labels.csv"), _labels(train).encode())
    objects.publish(objects.join(out, "train_groups.csv"), _groups(train).encode())
    counts = {
        "train": options.train,
        "test": options.test,
        "persons": len({exam.group for exam, _ in train}),
        "positive": sum(bool(boxes) for _, boxes in train),
        "boxes": sum(len(boxes) for _, boxes in train),
    }
    objects.publish(done, (json.dumps({"options": asked, "counts": counts}, indent=1) + "\n").encode())
    return f"made {_summary(counts)} in {out}"


def _publish_all(out: str, exams: list[Exam], processes: int) -> Iterator[list[Box]]:
    # spawn: s3fs does not survive a fork
    pool = ProcessPoolExecutor(
        min(processes, len(exams)), multiprocessing.get_context("spawn"), cv2.setNumThreads, (1,)
    )
    try:
        yield from pool.map(partial(_publish_exam, out), exams, chunksize=8)
    finally:
        pool.shutdown(cancel_futures=True)


def _publish_exam(out: str, exam: Exam) -> list[Box]:
    pixels, boxes = draw_film(exam)
    objects.publish(
        objects.join(out, f"{exam.subset}_images", f"{exam.patient_id}.dcm"), encode_dicom(pixels, exam)
    )
    return boxes


def _labels(train: list[tuple[Exam, list[Box]]]) -> str:
    lines = ["patientId,x,y,width,height,Target"]
    for exam, boxes in train:
        lines += [f"{exam.patient_id},{b.x}.0,{b.y}.0,{b.width}.0,{b.height}.0,1" for b in boxes]
        lines += [] if boxes else [f"{exam.patient_id},,,,,0"]
    return "\n".join(lines) + "\n"


def _groups(train: list[tuple[Exam, list[Box]]]) -> str:
    return "patientId,group\n" + "".join(f"{exam.patient_id},{exam.group}\n" for exam, _ in train)


def _words(options: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items())


def _summary(counts: dict[str, int]) -> str:
    return (
        f"{counts['train']} train images of {counts['persons']} persons "
        f"({counts['positive']} with {counts['boxes']} boxes) and {counts['test']} test images"
    )
