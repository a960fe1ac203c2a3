"""Orthanc with its DICOMweb plugin on loopback, from Debian's packages orthanc and orthanc-dicomweb.

python -m dev.archive FOLDER
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from dev import processes, servers
from lobar.core import console
from lobar.core.errors import InputError, OutsideError

PROGRAM = "Orthanc"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
MISSING = "Orthanc or its DICOMweb plugin was not found: apt-get install orthanc orthanc-dicomweb"
LOG = "orthanc.log"
READY_SECONDS = 60.0
GRACE_SECONDS = 10.0


@dataclass(frozen=True)
class Archive:
    """A running Orthanc: the URL of its own API and web page, the one of DICOMweb, and its process."""

    url: str
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def dicomweb(self) -> str:
        return f"{self.url}/dicom-web"


def find() -> str | None:
    """The program, if it is there with its plugin."""
    return shutil.which(PROGRAM) if PLUGIN.exists() else None


@contextmanager
def serve(folder: Path) -> Iterator[Archive]:
    """Run an archive with its data, settings and log in `folder`; it listens on loopback, without users.

    Raises InputError if it is not installed, OutsideError if it does not start.
    """
    program = find()
    if program is None:
        raise InputError(MISSING)
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = servers.free_ports(1)
    settings = {
        "StorageDirectory": str(folder / "data"), "IndexDirectory": str(folder / "data"),
        "Plugins": [str(PLUGIN)], "HttpPort": port, "DicomServerEnabled": False,
        "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    command = processes.ends_with_parent([program, str(folder / "orthanc.json")])
    environment = {"HOME": str(folder), "PATH": os.environ.get("PATH", "")}
    with (
        (folder / LOG).open("ab") as log,
        processes.started(command, environment, GRACE_SECONDS, log) as process,
    ):
        archive = Archive(f"http://127.0.0.1:{port}", process)
        _wait_until_ready(archive, folder / LOG)
        yield archive


def get(url: str, accept: str = "application/dicom+json") -> bytes:
    """The reply to a GET on loopback, around any proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, headers={"Accept": accept}), timeout=60) as reply:
        return bytes(reply.read())


def _wait_until_ready(archive: Archive, log: Path) -> None:
    until = time.monotonic() + READY_SECONDS
    while True:
        status = archive.process.poll()
        try:
            get(f"{archive.dicomweb}/studies?limit=1")
            return
        except (OSError, urllib.error.URLError) as error:
            reason = str(error) if status is None else f"exit status {status}"
        if status is not None or time.monotonic() > until:
            tail = " | ".join(log.read_text(errors="replace").splitlines()[-5:])
            raise OutsideError(f"Orthanc did not start: {reason}; end of {log}: {tail}")
        time.sleep(0.05)


def main(folder: Annotated[Path, typer.Argument(help="folder for the data and the log")]) -> None:
    """Run an archive until Ctrl-C, to look at exported reports."""
    stop = processes.Stop()
    with serve(folder) as archive:
        print(
            f"Orthanc: {archive.url}; export with --to dicomweb+{archive.dicomweb}; Ctrl-C stops it",
            flush=True,
        )
        while not stop.signum:
            if (status := archive.process.poll()) is not None:
                raise OutsideError(f"Orthanc ended unexpectedly with status {status}")
            time.sleep(processes.POLL_SECONDS)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    sys.exit(console.run_job(app, "python -m dev.archive"))
