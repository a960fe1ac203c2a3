"""What depends on the number of images and of shards: the plan, many small shards, and the merge."""

import time
from collections.abc import Iterable, Iterator
from typing import Any
from unittest import mock

import numpy as np

from bench import job, prediction
from bench.prediction import Bench
from bench.table import Row
from lobar.data.listing import Image, order_key
from lobar.inference import plan as plans
from lobar.inference import rows as submissions
from lobar.inference import shard, slices
from lobar.inference.record import Plan, Shard, ShardInputs
from lobar.storage import objects, records
from lobar.storage.layout import Prediction

SHARD_IMAGES = 1000
SMALL_SHARDS = 5000
SMALL_IMAGES = 10_000


def rows(bench: Bench) -> Iterator[Row]:
    """A merge of a million rows, and five thousand shards that run with a stub for the network."""
    peaks = {}
    for shards in (10, 1000):
        place = Prediction(objects.absolute(f"{bench.folder}/merge-{shards}"))
        count = shards * SHARD_IMAGES
        seconds = _plan(bench, place, count, shards)
        yield Row(f"plan of {count:,} listed images in {shards} shards", "", f"{seconds:.1f} s")
        _finish(place)
        seconds, peaks[shards] = job.measure("merge-submission", f"--prediction={place.url}")
        yield Row(f"merge of {count:,} rows, {shards} shards", "", f"{seconds:.1f} s, {peaks[shards]} MB")
    yield Row("peak memory of the larger merge", "", "", f"×{peaks[1000] / peaks[10]:.2f}", "×1.2")
    yield from _small_shards(bench)


def _plan(bench: Bench, place: Prediction, count: int, shards: int) -> float:
    """Plan images that are only listed; the seconds include neither the listing nor the sample for drift."""
    ids = sorted((f"{number:08d}" for number in range(count)), key=order_key)
    listed = [Image(name, objects.Object(f"s3://none/{name}.dcm", 130_000, "0" * 32)) for name in ids]
    listing = mock.patch("lobar.data.listing.list_images", return_value=(listed, []))
    with listing, mock.patch("lobar.data.drift.from_profile", return_value=[]):
        started = time.perf_counter()
        plans.make("s3://none", bench.model, place, prediction.request(shards, "float32"))
        return time.perf_counter() - started


def _finish(place: Prediction) -> None:
    """Write the table and the record of every shard as predict does; one image in four has a box."""
    plan = records.read(place.plan, Plan)
    for number in range(len(plan.slices)):
        predicted = [
            submissions.Row(item.image.patient_id, "0.912345 264 152 213 379 " * (i % 4 == 0))
            for i, item in enumerate(slices.read(place, plan, number))
        ]
        record = Shard(
            inputs=ShardInputs(plan.digest, number),
            table=records.put(place.shard_table, submissions.to_csv(predicted)),
            rows=len(predicted),
            with_boxes=sum(bool(row.prediction_string) for row in predicted),
            rejected=[],
        )
        records.create(place.shard_record(number), record)


class Stub:
    """An engine that takes no time and finds nothing."""

    batch = 8

    def __init__(self, *arguments: Any) -> None:
        pass

    def maps(self, batches: Iterable[tuple[Any, np.ndarray]]) -> Iterator[tuple[Any, np.ndarray]]:
        """As `lobar.inference.engines.Engine` says."""
        for key, levels in batches:
            yield key, np.zeros(levels.shape, np.float32)


def _small_shards(bench: Bench) -> Iterator[Row]:
    images = bench.folder / "many"
    images.mkdir()
    for number in range(SMALL_IMAGES):
        (images / f"{number:05d}.dcm").hardlink_to(bench.paths[number % len(bench.paths)])
    place = Prediction(objects.absolute(f"{bench.folder}/small"))
    started = time.perf_counter()
    plans.make(str(images), bench.model, place, prediction.request(SMALL_SHARDS, "float32"))
    plan_seconds = time.perf_counter() - started
    with mock.patch.object(shard, "ENGINE_OF_DEVICE", {"cpu": Stub}):
        started = time.perf_counter()
        for number in range(SMALL_SHARDS):
            shard.run(place, number, 0)
        shard_seconds = (time.perf_counter() - started) / SMALL_SHARDS
    merge_seconds, megabytes = job.measure("merge-submission", f"--prediction={place.url}")
    what = f"{SMALL_SHARDS} shards of {SMALL_IMAGES // SMALL_SHARDS} images"
    yield Row(f"plan of {what}, in a folder", "", f"{plan_seconds:.1f} s")
    yield Row(f"{what}, a stub for the network, per shard", "", f"{1000 * shard_seconds:.0f} ms")
    yield Row(f"merge of {what}", "", f"{merge_seconds:.1f} s, {megabytes} MB")
