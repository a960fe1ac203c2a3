"""How an image is brought to the network's size."""

from enum import StrEnum


class Sampling(StrEnum):
    """The two ways to sample an image.

    area: the mean over the area that each pixel covers, uint8 grey levels 0..255. notebook: bilinear without
    anti-aliasing, as in the notebook; on 1024 x 1024 images at 256 that is the mean of the central 2 x 2 of
    each 4 x 4 block. uint16 quarter grey levels 0..1020, so that it is exact.
    """

    AREA = "area"
    NOTEBOOK = "notebook"

    @property
    def dtype(self) -> str:
        return "uint8" if self is Sampling.AREA else "uint16"

    @property
    def max_value(self) -> int:
        """The largest grey level, which the network scales to 1."""
        return 255 if self is Sampling.AREA else 1020
