"""Synthetic dataset in the format of the RSNA challenge, to run lobar without real patients.

Each image depends on (seed, subset, index) alone, not on the size of the dataset or the number of processes:
the first n images are the same in every dataset with the same seed.
"""

import io
import multiprocessing
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar

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
from lobar.core.version import __version__
from lobar.storage import objects, records
from lobar.synthetic.anatomy import FloatImage, Patient, draw_body, draw_patient, draw_pose
from lobar.synthetic.findings import draw_distractors, draw_incidental_findings, draw_opacities

SIZE = 1024
JPEG_QUALITY = 92
# shares of AP views in RSNA's positive and negative images; the prevalence per view follows from them
AP_OF_POSITIVES = 0.78
AP_OF_NEGATIVES = 0.36
# probability that an exam is of a new patient: RSNA has 26,684 exams of 11,440 patients
NEW_PATIENT = 0.43
# other exams are of the patient of one of this many previous exams, which limits the exams per patient
RECENT_EXAMS = 60
PIXEL_SPACINGS = ("0.143", "0.168", "0.139", "0.171", "0.194311")
SUBSETS = ("train", "test")


@dataclass(frozen=True)
class Options:
    """Inputs of a dataset: training and test images, share of positive images, seed, version of lobar."""

    train: int
    test: int
    prevalence: float
    seed: int
    lobar: str = __version__


@dataclass(frozen=True)
class Counts:
    """Contents of a dataset; patients, positive images and boxes are those of the training images."""

    train: int
    test: int
    patients: int
    positive: int
    boxes: int

    def __str__(self) -> str:
        return (
            f"{self.train} training images of {self.patients} patients "
            f"({self.positive} positive, {self.boxes} boxes) and {self.test} test images"
        )


@dataclass(frozen=True, kw_only=True)
class Demo(records.Record):
    """`demo.json`, created last: a folder that contains it is complete."""

    MADE_BY: ClassVar[str] = "demo-data"

    inputs: Options
    counts: Counts


@dataclass(frozen=True)
class Exam:
    """Identity and header values of one image; `patient_id` is unique per exam, as RSNA's patientId is."""

    subset: str
    index: int
    seed: int
    patient: int
    patient_id: str
    target: bool
    view: str

    @property
    def group(self) -> str:
        """Patient of the exam, as the groups table names it."""
        return f"{self.patient:08d}"

    def random(self, purpose: int) -> np.random.Generator:
        """Random generator of this exam; each `purpose` has an independent one."""
        return np.random.default_rng([self.seed, SUBSETS.index(self.subset), self.index, purpose])

    def draw_patient(self) -> Patient:
        """Traits of the patient, the same in all exams of that patient."""
        return draw_patient(np.random.default_rng([self.seed, SUBSETS.index(self.subset), self.patient, 99]))


def list_exams(subset: str, count: int, options: Options) -> list[Exam]:
    """The first `count` exams of `subset` (train or test): 2.3 per patient on average, many for a few."""
    exams: list[Exam] = []
    patients = 0
    for index in range(count):
        random = np.random.default_rng([options.seed, SUBSETS.index(subset), index, 0])
        new_patient, previous, target, view = random.random(4)
        if not exams or new_patient < NEW_PATIENT:
            patient, patients = patients, patients + 1
        else:
            patient = exams[-1 - int(previous * min(len(exams), RECENT_EXAMS))].patient
        positive = bool(target < options.prevalence)
        exams.append(
            Exam(
                subset=subset,
                index=index,
                seed=options.seed,
                patient=patient,
                patient_id=str(uuid.UUID(bytes=random.bytes(16), version=4)),
                target=positive,
                view="AP" if view < (AP_OF_POSITIVES if positive else AP_OF_NEGATIVES) else "PA",
            )
        )
    return exams


def draw_image(exam: Exam) -> tuple[NDArray[np.uint8], list[Box]]:
    """Pixels (1024, 1024) uint8, MONOCHROME2, and the boxes of the opacities in them."""
    random = exam.random(1)
    patient = exam.draw_patient()
    pose = draw_pose(random, exam.view)
    attenuation, lungs = draw_body(patient, pose, random)
    boxes: list[Box] = []
    covered = np.zeros_like(attenuation)
    if exam.target:
        boxes, covered = draw_opacities(attenuation, lungs, pose, random)
    draw_distractors(attenuation, lungs, pose, covered, random)
    draw_incidental_findings(attenuation, lungs, patient, pose, random)
    return _expose(attenuation, exam.view, random), boxes


def _expose(attenuation: FloatImage, view: str, random: np.random.Generator) -> NDArray[np.uint8]:
    """Image (1024, 1024) of an attenuation (512, 512): contrast, exposure, uneven background and noise."""
    contrast = random.uniform(0.62, 0.9) if view == "AP" else random.uniform(0.8, 1.05)
    level = random.uniform(0.02, 0.2) if view == "AP" else random.uniform(0.0, 0.08)
    brightness = np.clip(attenuation, 0, None) ** random.uniform(0.85, 1.35) * contrast + level
    gradient = np.linspace(-0.5, 0.5, attenuation.shape[0], dtype=np.float32) * random.normal(0, 0.06)
    brightness += gradient[:, None] + (gradient * random.normal(0, 0.6))[None, :]
    small = np.clip(brightness * 235, 0, 255).astype(np.uint8)
    image = cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    y, x = random.integers(0, SIZE, 2)
    gain = float(random.uniform(0.6, 1.25))
    # adds scaled noise with mean 128 and saturates, in one pass over the pixels
    noisy = cv2.addWeighted(image, 1.0, _image_noise()[y : y + SIZE, x : x + SIZE], gain, -128.0 * gain)
    return np.asarray(noisy, np.uint8)


@cache
def _image_noise() -> NDArray[np.uint8]:
    noise = np.random.default_rng(7).standard_normal((2 * SIZE, 2 * SIZE)).astype(np.float32)
    noise = noise + 4 * cv2.GaussianBlur(noise, (0, 0), 1.1)
    return np.clip(128 + 2.4 * noise / noise.std(), 0, 255).round().astype(np.uint8)


def encode_dicom(pixels: NDArray[np.uint8], exam: Exam) -> bytes:
    """A DICOM file with `pixels` (rows, columns) uint8 as JPEG Baseline and RSNA's header fields."""
    encoded, frame = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not encoded:
        raise RuntimeError(f"OpenCV could not encode image {exam.patient_id}")
    # RSNA writes ages as '51', which DICOM does not allow
    with config.disable_value_validation():
        dataset = _header(exam)
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.PixelData = encapsulate([frame.tobytes()])
        file = io.BytesIO()
        dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _header(exam: Exam) -> Dataset:
    random = exam.random(2)
    patient = exam.draw_patient()
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
        "PatientSex": patient.sex,
        "PatientAge": str(patient.age),
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
    """Create the dataset in the folder `out` (a path or URL), and return one line that describes it.

    `processes` draw the images, by default one per available CPU. A complete dataset is not drawn again.
    Raises InputError if the folder contains a dataset with other options.
    """
    url = objects.join(out, "demo.json")
    advice = "choose another folder or delete this one"
    demo = records.find(url, Demo, options, advice)
    if demo:
        return f"already there: {demo.counts} in {out}"
    exams = [exam for subset in SUBSETS for exam in list_exams(subset, getattr(options, subset), options)]
    boxes = list(progress(_publish_images(out, exams, processes or cpus()), len(exams), "demo images"))
    train = list(zip(exams, boxes, strict=True))[: options.train]
    objects.publish(objects.join(out, "train_labels.csv"), _labels(train).encode())
    objects.publish(objects.join(out, "train_groups.csv"), _groups(train).encode())
    counts = Counts(
        train=options.train,
        test=options.test,
        patients=len({exam.patient for exam, _ in train}),
        positive=sum(exam_boxes != [] for _, exam_boxes in train),
        boxes=sum(len(exam_boxes) for _, exam_boxes in train),
    )
    records.create(url, Demo(inputs=options, counts=counts), advice)
    return f"created {counts} in {out}"


def _publish_images(out: str, exams: list[Exam], processes: int) -> Iterator[list[Box]]:
    """Draw and publish the images; yields the boxes of each, in order."""
    # spawn: s3fs does not work after a fork
    pool = ProcessPoolExecutor(
        min(processes, len(exams)), multiprocessing.get_context("spawn"), cv2.setNumThreads, (1,)
    )
    try:
        yield from pool.map(partial(_publish_image, out), exams, chunksize=8)
    finally:
        pool.shutdown(cancel_futures=True)


def _publish_image(out: str, exam: Exam) -> list[Box]:
    pixels, boxes = draw_image(exam)
    url = objects.join(out, f"{exam.subset}_images", f"{exam.patient_id}.dcm")
    objects.publish(url, encode_dicom(pixels, exam))
    return boxes


def _labels(train: list[tuple[Exam, list[Box]]]) -> str:
    lines = ["patientId,x,y,width,height,Target"]
    for exam, boxes in train:
        lines += [f"{exam.patient_id},{b.x}.0,{b.y}.0,{b.width}.0,{b.height}.0,1" for b in boxes]
        lines += [] if boxes else [f"{exam.patient_id},,,,,0"]
    return "\n".join(lines) + "\n"


def _groups(train: list[tuple[Exam, list[Box]]]) -> str:
    return "patientId,group\n" + "".join(f"{exam.patient_id},{exam.group}\n" for exam, _ in train)
