"""What a user sees of a job: log lines, progress, and how it ends."""

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

LOG_INTERVAL_SECONDS = 10.0
# Kubernetes and Argo show its content as the reason why a container ended
TERMINATION_MESSAGE = Path("/dev/termination-log")
OUT_OF_MEMORY = (
    "out of memory; raise its memory limit (limits.memory of its template in the workflow), "
    "or give it less to do at once (more shards, a smaller batch or image size)"
)
T = TypeVar("T")
log = logging.getLogger(__name__)
# of stores: Azure's library logs every request
DRIVERS = ("adlfs", "aiobotocore", "azure", "botocore", "gcsfs", "google", "msal", "s3fs", "urllib3")


def run_job(job: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command line with logging set up, and return its exit status (0, 1, 2 or 75).

    A LobarError or a wrong option becomes one plain line: the last one on stderr, and a pod's termination
    message. Only an internal error shows a stack trace. With `arguments` None, those of the process are used.
    """
    # force: some libraries configure the root logger when imported
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s", force=True)
    for noisy in (*DRIVERS, "asyncio", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    try:
        job(arguments, prog_name=name, standalone_mode=False)
    except LobarError as error:
        option = f" (option --{error.setting.replace('_', '-')})" if error.setting else ""
        return _fail(error.status, f"{error}{option}")
    except typer.TyperException as error:
        message = error.format_message().rstrip(".")
        return _fail(InputError.status, f"{message} ({name} --help lists the options)")
    except MemoryError:
        return _fail(InputError.status, f"{name}: {OUT_OF_MEMORY}")
    except Exception as error:  # the one place where any error of a job becomes an exit status
        traceback.print_exc()
        return _fail(1, f"internal error: {type(error).__name__}: {error}")
    return 0


def exit_process(status: int) -> NoReturn:
    """End this process without Python's finalization, during which native threads have crashed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def exit_on_signal() -> None:
    """End the process at once with status 75 on SIGTERM, SIGINT or SIGHUP.

    No exception is raised: in native code it would be lost or cause a crash. Published objects are complete,
    and the next run makes the missing ones.
    """

    def on_signal(signum: int, frame: FrameType | None) -> None:
        for child in multiprocessing.active_children():
            child.kill()
        line = f"error: {interruption_message(signum)}"
        # not print(), which the signal may have interrupted; on a terminal, end the line of a progress bar
        os.write(2, ("\n" * os.isatty(2) + f"{line}\n").encode())
        _write_termination_message(line)
        os._exit(OutsideError.status)

    _install_handler(on_signal)


def raise_on_signal() -> None:
    """Raise OutsideError in the main thread on SIGTERM, SIGINT or SIGHUP."""

    def on_signal(signum: int, frame: FrameType | None) -> None:
        raise OutsideError(interruption_message(signum))

    _install_handler(on_signal)


def interruption_message(signum: int) -> str:
    """The error message of work that a signal ended."""
    return f"interrupted ({signal.Signals(signum).name}); run the same command again to continue"


def _install_handler(handler: Callable[[int, FrameType | None], None]) -> None:
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, handler)


def _fail(status: int, text: str) -> int:
    line = "error: " + " ".join(text.split())
    print(line, file=sys.stderr, flush=True)  # noqa: T201
    _write_termination_message(line)
    return status


def _write_termination_message(line: str) -> None:
    if TERMINATION_MESSAGE.exists():
        with suppress(OSError):  # the line is in the log as well
            TERMINATION_MESSAGE.write_text(line)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress what native code writes to stderr; it is shown only if the block raises."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException:
            captured.seek(0)
            os.write(stderr, captured.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield `items` and show how many of `total` are done.

    On a terminal as a bar, elsewhere as a log line every ten seconds, and for Argo's UI as `N/M` in the file
    named by ARGO_PROGRESS_FILE.
    """
    on_terminal = sys.stderr.isatty()
    if on_terminal:
        from tqdm import tqdm

        items = tqdm(items, total=total, desc=what, unit="", leave=False)
    logged, written = time.monotonic(), 0.0
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if not on_terminal and now - logged >= LOG_INTERVAL_SECONDS:
            logged = now
            log.info("%s: %d of %d", what, done, total)
        if now - written >= 1:
            written = now
            _write_argo_progress(done, total)
    _write_argo_progress(total, total)


def _write_argo_progress(done: int, total: int) -> None:
    if file := os.environ.get("ARGO_PROGRESS_FILE"):
        with suppress(OSError):  # progress is optional, and no reason to fail
            Path(file).write_text(f"{done}/{total}")
