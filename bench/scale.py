"""What grows with the number of images and of shards: the plan, many small shards, and the merge."""

import time
from collections.abc import Iterable, Iterator
from typing import Any
from unittest import mock

import numpy as np

from bench import prediction as predicting
from bench.prediction import Bench
from bench.table import Row
from lobar.data.listing import Image, order_key
from lobar.inference import plan, submission
from lobar.inference import shard as shard_module
from lobar.storage import objects, records
from lobar.storage.layout import Prediction

SHARD_IMAGES = 1000
SMALL_SHARDS = 5000
SMALL_IMAGES = 10_000


def rows(bench: Bench) -> Iterator[Row]:
    """A million rows merged, and five thousand shards run with a stub in the network's place."""
    peaks = {}
    for shards in (10, 1000):
        place = Prediction(objects.absolute(f"{bench.folder}/merge-{shards}"))
        count = shards * SHARD_IMAGES
        seconds = _planned(bench, place, count, shards)
        yield Row(f"plan of {count:,} listed images in {shards} shards", "", f"{seconds:.1f} s")
        _finish(plan.read(place))
        seconds, peaks[shards] = predicting.run("merge-submission", f"--prediction={place.url}")
        yield Row(f"merge of {count:,} rows, {shards} shards", "", f"{seconds:.1f} s, {peaks[shards]} MB")
    yield Row("peak memory of the larger merge", "", "", f"×{peaks[1000] / peaks[10]:.2f}", "×1.2")
    yield from _small_shards(bench)


def _planned(bench: Bench, place: Prediction, count: int, shards: int) -> float:
    """Plan images that are only listed: seconds for everything but the listing and reading a sample."""
    ids = sorted((f"{number:08d}" for number in range(count)), key=order_key)
    listed = [Image(name, objects.Object(f"s3://none/{name}.dcm", 130_000, "0" * 32)) for name in ids]
    listing = mock.patch("lobar.data.listing.list_images", return_value=(listed, []))
    with listing, mock.patch("lobar.data.drift.from_profile", return_value=[]):
        started = time.perf_counter()
        plan.make("s3://none", bench.model, shards, place, "cpu", "float32", "notebook")
        return time.perf_counter() - started


def _finish(made: plan.Plan) -> None:
    """Every shard's table and record, one image in four with a box, as predict leaves them."""
    for shard in range(len(made.slices)):
        found = [
            (image.patient_id, "0.912345 264 152 213 379 " * (number % 4 == 0))
            for number, image in enumerate(made.images(shard))
        ]
        table = submission.to_csv(submission.HEADER, found)
        written = records.sha256(table)
        objects.publish(made.place.shard_table(written), table)
        record = made.place.shard_record(shard)
        inputs = {"plan": made.digest, "shard": shard}
        records.commit(record, inputs, table=written, rows=len(found), with_boxes=0, rejected=[])


class Stub:
    """A network that takes no time: nothing is found anywhere."""

    batch = 8

    def __init__(self, *opened: Any) -> None:
        pass

    def maps(self, batches: Iterable[tuple[Any, np.ndarray]]) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        for key, levels in batches:
            yield key, levels, np.zeros(levels.shape, np.float32)


def _small_shards(bench: Bench) -> Iterator[Row]:
    images = bench.folder / "many"
    images.mkdir()
    for number in range(SMALL_IMAGES):
        (images / f"{number:05d}.dcm").hardlink_to(bench.paths[number % len(bench.paths)])
    place = Prediction(objects.absolute(f"{bench.folder}/small"))
    started = time.perf_counter()
    plan.make(str(images), bench.model, SMALL_SHARDS, place, "cpu", "float32", "notebook")
    planned = time.perf_counter() - started
    with mock.patch.dict("lobar.inference.shard.__dict__", {"ENGINE_OF_DEVICE": {"cpu": Stub}}):
        started = time.perf_counter()
        for shard in range(SMALL_SHARDS):
            shard_module.run(place, shard, 0)
        taken = time.perf_counter() - started
    seconds, megabytes = predicting.run("merge-submission", f"--prediction={place.url}")
    what = f"{SMALL_SHARDS} shards of {SMALL_IMAGES // SMALL_SHARDS} images"
    yield Row(f"plan of {what}, in a folder", "", f"{planned:.1f} s")
    yield Row(f"{what}, a stub for the network, each", "", f"{1000 * taken / SMALL_SHARDS:.0f} ms")
    yield Row(f"merge of {what}", "", f"{seconds:.1f} s, {megabytes} MB")
