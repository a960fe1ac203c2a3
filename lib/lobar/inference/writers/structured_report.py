"""One image's row of a submission as a DICOM structured report (TID 1500, Comprehensive SR).

The same image and row of the same prediction give the same bytes: dates are the image's, and UIDs are made of
the content. docs/dicom.md describes every element.
"""

import io
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal

import highdicom as hd
import numpy as np
from highdicom import sr
from pydicom.sr.coding import Code

from lobar.core.boxes import Box
from lobar.imaging.elements import RejectedImage, described
from lobar.inference.record import PlanInputs
from lobar.inference.reuse import ROW_INPUTS
from lobar.inference.writers.source import Source
from lobar.storage import objects, records
from lobar.storage.layout import Model

NAMESPACE = uuid.UUID("6c6f6261-722d-4d52-8f70-6f7274000001")
NOTICE = "Not for clinical use. Made by software; no person has checked it. "
REGIONS = "Each region is a rectangle that may contain a lung opacity suspicious for pneumonia."
NO_REGION = "The software found no lung opacity suspicious for pneumonia. This does not exclude one."
SERIES = "lobar regions, not for clinical use"
SERIES_NUMBER = 9001  # far above those of a study's images
# SNOMED CT: Pneumonia (disorder); its site and "Absent" are in DICOM's CID 6100 and 240
PNEUMONIA = Code("233604007", "SCT", "Pneumonia")
LUNG = Code("39607008", "SCT", "Lung")
ABSENT = Code("272519000", "SCT", "Absent")
BOUNDED_BY = Code("75958009", "SCT", "Bounded by")  # CID 219: around the finding, not its outline
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")  # CID 6048
PERCENT = Code("%", "UCUM", "Percent")
RADIOGRAPHY = Code("43468-8", "LN", "XR unspecified body region")  # CID 100
# optional elements in which highdicom writes the time of day
WITH_THE_CLOCK = ("InstanceCreationDate", "InstanceCreationTime", "ContributingEquipmentSequence")
COMMENT = Code("121106", "DCM", "Comment")


@dataclass(frozen=True)
class Report:
    """A structured report: its SOP Instance UID, and its bytes as a DICOM file."""

    uid: str
    data: bytes


class Writer:
    """Makes the reports of one prediction."""

    def __init__(self, prediction: PlanInputs) -> None:
        self.version = prediction.lobar
        # not the number of shards, nor where anything lies
        self.digest = records.digest({name: getattr(prediction, name) for name in ROW_INPUTS})
        model, files = Model(prediction.model), prediction.files
        on_gpu = prediction.device == "gpu"
        file = model.keras(files.keras) if on_gpu else model.weights(files.openvino(prediction.precision)[1])
        point = ", ".join(f"{name} {value}" for name, value in asdict(prediction.operating_point).items())
        self.parameters = [
            f"model: {objects.name(file)}, named by its SHA-256",
            f"precision: {prediction.precision} on the {prediction.device}",
            f"operating point: {point}",
            f"prediction: {self.digest}",
        ]

    def report(self, image_id: str, source: Source, boxes: Sequence[Box]) -> Report:
        """The report of an image: one group for each box, or one that says that nothing was found.

        Raises RejectedImage if the image is of a class that a report cannot refer to.
        """
        try:
            report = self._document(image_id, source, boxes)
        except KeyError as error:  # highdicom knows the classes of the standard
            if str(source.elements.SOPClassUID) not in str(error):
                raise
            name = described("SOPClassUID")
            raise RejectedImage(f"{name} is not one of the standard's image classes") from error
        for keyword in WITH_THE_CLOCK:
            delattr(report, keyword)
        content_digest = records.sha256(_encode(report))
        report.SeriesInstanceUID = _uid(content_digest, "series")
        report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = _uid(content_digest, "instance")
        return Report(report.SOPInstanceUID, _encode(report))

    def _document(self, image_id: str, source: Source, boxes: Sequence[Box]) -> sr.ComprehensiveSR:
        key = self.digest, image_id, str(source.elements.SOPInstanceUID)
        groups = [self._region(box, number, source, key) for number, box in enumerate(boxes, start=1)]
        content = sr.MeasurementReport(
            observation_context=sr.ObservationContext(observer_device_context=self._observer()),
            procedure_reported=RADIOGRAPHY,
            imaging_measurements=groups or [self._nothing(source, key)],
        )
        content[0].ContentSequence.append(
            sr.TextContentItem(
                COMMENT, NOTICE + (REGIONS if boxes else NO_REGION), sr.RelationshipTypeValues.CONTAINS
            )
        )
        return sr.ComprehensiveSR(
            evidence=[source.elements],
            content=content,
            series_instance_uid=_uid(*key, "series"),
            series_number=SERIES_NUMBER,
            sop_instance_uid=_uid(*key, "instance"),
            instance_number=1,
            manufacturer="lobar",
            manufacturer_model_name="lobar",
            software_versions=self.version,
            series_description=SERIES,
            is_complete=True,
            content_date=source.date,
            content_time=source.time,
            specific_character_set="ISO_IR 192",
        )

    def _region(
        self, box: Box, number: int, source: Source, key: Sequence[str]
    ) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
        """A box as a closed polyline along the outer edges of its pixels, with its confidence."""
        right, bottom = box.x + box.width, box.y + box.height
        corners = [(box.x, box.y), (right, box.y), (right, bottom), (box.x, bottom), (box.x, box.y)]
        image = sr.SourceImageForRegion(source.elements.SOPClassUID, source.elements.SOPInstanceUID)
        region = sr.ImageRegion(sr.GraphicTypeValues.POLYLINE, np.array(corners, np.float64), image)
        return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(_uid(*key, str(number)), f"{key[1]} box {number}"),
            referenced_region=region,
            geometric_purpose=BOUNDED_BY,
            finding_type=PNEUMONIA,
            finding_sites=[sr.FindingSite(LUNG)],
            algorithm_id=self._algorithm(),
            measurements=[sr.Measurement(CERTAINTY, _percent(box.confidence), PERCENT)],
        )

    def _nothing(self, source: Source, key: Sequence[str]) -> sr.MeasurementsAndQualitativeEvaluations:
        """The evaluation "Pneumonia: Absent" of the image; without a Finding, which readers might list."""
        elements = source.elements
        image = sr.SourceImageForMeasurementGroup(elements.SOPClassUID, elements.SOPInstanceUID)
        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(_uid(*key, "0"), f"{key[1]} no box"),
            finding_sites=[sr.FindingSite(LUNG)],
            algorithm_id=self._algorithm(),
            qualitative_evaluations=[sr.QualitativeEvaluation(PNEUMONIA, ABSENT)],
            source_images=[image],
        )

    def _algorithm(self) -> sr.AlgorithmIdentification:
        return sr.AlgorithmIdentification("lobar", self.version, self.parameters)

    def _observer(self) -> sr.ObserverContext:
        device = sr.DeviceObserverIdentifyingAttributes(
            _uid("lobar", self.version), "lobar", "lobar", "lobar"
        )
        return sr.ObserverContext(sr.CodedConcept("121007", "DCM", "Device"), device)


def _percent(confidence: float) -> float:
    """Exactly: a submission has six digits."""
    return float(Decimal(f"{confidence:.6f}") * 100)


def _uid(*parts: str) -> hd.UID:
    """A UID made of a UUID (PS3.5, B.2) that depends on the parts alone."""
    return hd.UID.from_uuid(str(uuid.uuid5(NAMESPACE, "\0".join(parts))))


def _encode(report: sr.ComprehensiveSR) -> bytes:
    body = io.BytesIO()
    report.save_as(body, enforce_file_format=True)
    return body.getvalue()
