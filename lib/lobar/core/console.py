"""What a person or a pod's log sees: log lines, progress, and the exit of a job."""

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

import typer

from lobar.core.errors import InputError, LobarError, OutsideError

LINE_EVERY_SECONDS = 10.0
# What Kubernetes, and so Argo, shows as the reason why a container ended
TERMINATION_MESSAGE = Path("/dev/termination-log")
NO_MEMORY = (
    "out of memory; give it more (limits.memory of its template in job-templates.yaml), "
    "or less to do at once (more shards, a smaller batch or image size)"
)
T = TypeVar("T")
log = logging.getLogger(__name__)


def run_job(job: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command line with logging set up, and return its exit status (0, 1, 2 or 75).

    A LobarError or a wrong option becomes one plain line, the last on stderr and in a pod its termination
    message; only an internal error shows a stack trace. `arguments` are the process's own where None.
    """
    # force: some libraries configure the root logger when imported
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s", force=True)
    for noisy in ("asyncio", "botocore", "aiobotocore", "s3fs", "matplotlib", "pydicom"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    try:
        job(arguments, prog_name=name, standalone_mode=False)
    except LobarError as error:
        return _fail(error.status, str(error))
    except typer.TyperException as error:
        wrong = error.format_message().rstrip(".")
        return _fail(InputError.status, f"{wrong} ({name} --help lists the options)")
    except MemoryError:
        return _fail(InputError.status, f"{name}: {NO_MEMORY}")
    except Exception as error:  # the one place where whatever a job raises becomes a status
        traceback.print_exc()
        return _fail(1, f"internal error: {type(error).__name__}: {error}")
    return 0


def exit_process(status: int) -> NoReturn:
    """End this process without Python's own tear-down, in which native threads have crashed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def exit_on_signal() -> None:
    """End the process with 75 on SIGTERM, SIGINT or SIGHUP, at once, wherever it is.

    Nothing is unwound: an exception thrown through native code is lost or crashes it. What is published is
    whole, and what is not is made again.
    """

    def on_signal(signum: int, frame: FrameType | None) -> None:
        for child in multiprocessing.active_children():
            child.kill()
        # not by print: the signal may have come in the middle of one; a terminal may show a progress bar
        os.write(2, ("\n" * os.isatty(2) + f"error: {interrupted(signum)}\n").encode())
        _tell_kubernetes(f"error: {interrupted(signum)}")
        os._exit(OutsideError.status)

    _on_stop(on_signal)


def raise_on_signal() -> None:
    """Raise OutsideError in the main thread on SIGTERM, SIGINT or SIGHUP."""

    def on_signal(signum: int, frame: FrameType | None) -> None:
        raise OutsideError(interrupted(signum))

    _on_stop(on_signal)


def interrupted(signum: int) -> str:
    """What a person reads when a signal ended the work."""
    return f"interrupted ({signal.Signals(signum).name}); run the same command again to go on"


def _on_stop(handler: Callable[[int, FrameType | None], None]) -> None:
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, handler)


def _fail(status: int, text: str) -> int:
    line = "error: " + " ".join(text.split())
    print(line, file=sys.stderr, flush=True)  # noqa: T201
    _tell_kubernetes(line)
    return status


def _tell_kubernetes(line: str) -> None:
    if TERMINATION_MESSAGE.exists():
        with suppress(OSError):  # the line is in the log too
            TERMINATION_MESSAGE.write_text(line)


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what native code writes to stderr; it is shown only where the block fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield `items`, showing how many of `total` went by.

    A terminal gets a bar, a pod a plain line every ten seconds, and Argo's UI `N/M` in the file that
    it names in ARGO_PROGRESS_FILE.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from _argo(tqdm(items, total=total, desc=what, unit="", leave=False), total)
    else:
        yield from _argo(_lines(items, total, what), total)


def _lines(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    said = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - said >= LINE_EVERY_SECONDS:
            said = time.monotonic()
            log.info("%s: %d of %d", what, done, total)


def _argo(items: Iterable[T], total: int) -> Iterator[T]:
    written = 0.0
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - written >= 1:
            written = time.monotonic()
            _tell_argo(done, total)
    _tell_argo(total, total)


def _tell_argo(done: int, total: int) -> None:
    if file := os.environ.get("ARGO_PROGRESS_FILE"):
        with suppress(OSError):  # progress is a courtesy, and no reason to fail
            Path(file).write_text(f"{done}/{total}")
