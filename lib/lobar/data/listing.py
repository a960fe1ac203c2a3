"""The images under a prefix, and the order that they have everywhere."""

import hashlib
import re
from dataclasses import dataclass

from lobar.core.errors import InputError
from lobar.storage import objects

NOT_IN_CSV = r"\x00-\x1f\ud800-\udfff"  # characters that a CSV in UTF-8 cannot hold
IMAGE_NAME = re.compile(
    rf"(?P<id>[^{NOT_IN_CSV}]+)\.(dcm|dicom)|(?P<bare>[^{NOT_IN_CSV}.]+(\.\d[^{NOT_IN_CSV}.]*)*)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Image:
    """An image object and the patient id that its name gives."""

    patient_id: str
    object: objects.Object


def order_key(patient_id: str) -> bytes:
    """The position of an image in every list: by a hash, because the order of ids is not random."""
    return hashlib.sha256(patient_id.encode()).digest()


def list_images(url: str) -> tuple[list[Image], list[str]]:
    """The images under a prefix in the order of `order_key`, and the URLs of other objects there.

    An image is an object named ID.dcm or ID.dicom, or just ID if it has no suffix other than numbers (a UID).
    The ID is Unicode without control characters. Hidden objects are skipped. Raises InputError if there is no
    image.
    """
    images, others = [], []
    root = objects.absolute(url)
    for item in objects.list_objects(url):
        file, path = objects.name(item.url), item.url.removeprefix(root)
        outside = ".." in path.split("/")  # a store may keep such a key as it is
        if "/." in path and not outside:
            continue
        if (named := IMAGE_NAME.fullmatch(file)) and not outside:
            images.append(Image(named["id"] or named["bare"], item))
        else:
            others.append(item.url.encode(errors="backslashreplace").decode())
    if not images:
        raise InputError(f"{url}: no images there (objects named ID.dcm); {len(others)} other objects")
    return sorted(images, key=lambda image: (order_key(image.patient_id), image.object.url)), others
