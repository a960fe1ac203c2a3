"""The images under a prefix, and the order that they have everywhere."""

import bisect
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lobar.core.errors import InputError, LobarError
from lobar.storage import objects

NOT_IN_CSV = r"\x00-\x1f\ud800-\udfff"  # characters that a CSV in UTF-8 cannot hold
SUFFIXES = (".dcm", ".dicom")  # in any case
# without a suffix other than numbers (a UID), a name says nothing about the content
BARE_NAME = re.compile(r"[^.]+(\.\d[^.]*)*")
UNUSABLE = re.compile(rf"[{NOT_IN_CSV}]")
DIRECTORY = "DICOMDIR"  # the index of a disc, which is DICOM but no image
MARK = slice(128, 132)  # the file's bytes that are "DICM". Source: DICOM PS3.10, 7.1


@dataclass(frozen=True, slots=True)
class Image:
    """An image object and the patient id that its name gives."""

    patient_id: str
    object: objects.Object


def order_key(patient_id: str) -> bytes:
    """The position of an image in every list: by a hash, because the order of ids is not random."""
    return hashlib.sha256(patient_id.encode()).digest()


def without_suffix(name: str) -> str:
    """The patient id of a file name with one of SUFFIXES, or with several; any other name itself."""
    while name.lower().endswith(SUFFIXES):
        name = name[: name.rindex(".")]
    return name


def list_images(url: str) -> tuple[list[Image], list[str]]:
    """The images under a prefix in the order of `order_key`, and the URLs of other objects there.

    An image is an object named ID.dcm or ID.dicom, or just ID if its content has the mark of DICOM files. The
    ID is Unicode without control characters. Hidden objects are skipped; empty objects that stand for a
    folder and DICOMDIR are other objects. Raises InputError if there is no image.
    """
    root = objects.absolute(url)
    images: list[objects.Object] = []
    unmarked: list[objects.Object] = []
    others: list[objects.Object] = []
    listed = objects.list_objects(url)
    urls = [item.url for item in listed]
    for item in listed:
        file, path = objects.name(item.url), item.url.removeprefix(root)
        outside = ".." in path.split("/")  # a store may keep such a key as it is
        if outside or UNUSABLE.search(file) or file.upper() == DIRECTORY or _is_folder(item, urls):
            others.append(item)
        elif "/." not in path:
            is_image, may_be_one = without_suffix(file) != file, BARE_NAME.fullmatch(file)
            (images if is_image else unmarked if may_be_one else others).append(item)
    for item, start in objects.read_many(unmarked, first=MARK.stop):
        if isinstance(start, LobarError):
            raise start
        (images if start[MARK] == b"DICM" else others).append(item)
    others.sort(key=lambda item: item.url)
    names = [item.url.encode(errors="backslashreplace").decode() for item in others]
    if not images:
        found = f", for example {names[0]}" if names else ""
        raise InputError(f"{url}: no images there (objects named ID.dcm); {len(names)} other objects{found}")
    named = [Image(without_suffix(objects.name(item.url)), item) for item in images]
    return sorted(named, key=lambda image: (order_key(image.patient_id), image.object.url)), names


def _is_folder(item: objects.Object, urls: Sequence[str]) -> bool:
    """Whether an empty object only marks a folder: other objects, of the sorted `urls`, are in it."""
    if item.bytes:
        return False
    after = bisect.bisect_left(urls, f"{item.url}/")
    return after < len(urls) and urls[after].startswith(f"{item.url}/")
