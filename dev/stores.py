"""The stores that `servers` can run: which program each is, how it is started, and how a client finds it."""

import json
import shutil
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError

from botocore.config import Config
from botocore.session import Session

from lobar.core.errors import InputError

Kind = Literal["s3", "minio", "gcs", "azure"]
BUCKET = "lobar"
TOOLS = Path(__file__).parents[1] / ".tools"
SCHEMES: Mapping[Kind, str] = {"s3": "s3", "minio": "s3", "gcs": "gs", "azure": "abfs"}
# SeaweedFS would wait 17 s for peers that do not exist; its data is on disk before that
GRACE_SECONDS: Mapping[Kind, float] = {"s3": 0.5, "minio": 10.0, "gcs": 2.0, "azure": 10.0}
REGION = "us-east-1"  # the default of both S3 servers
ACCOUNT = "lobar"
SEAWEEDFS_PORTS = ("s3.port", "filer.port", "s3.port.grpc", "filer.port.grpc", "master.port",
                   "master.port.grpc", "volume.port", "volume.port.grpc")  # fmt: skip
Command = tuple[list[str], dict[str, str]]


def find(kind: Kind) -> Path | None:
    """The program of a store: where `make` installs it, else on PATH, else None."""
    places = {
        "s3": Path(sys.executable).with_name("weed"),
        "minio": TOOLS / "minio",
        "gcs": TOOLS / "fake-gcs-server",
        "azure": TOOLS / "azurite/node_modules/.bin/azurite-blob",
    }
    program = shutil.which(places[kind]) or shutil.which(places[kind].name)
    if kind == "azure" and not shutil.which("node"):
        return None
    return Path(program) if program else None


def command(kind: Kind, folder: Path, ports: Sequence[int], access_key: str, secret_key: str) -> Command:
    """The command line of a store with its data in `folder`, and the environment that it needs.

    Raises InputError if the program is missing.
    """
    program = find(kind)
    if program is None:
        build = "make install" if kind == "s3" else f"make {kind}"
        raise InputError(f"{kind}: its program is neither on PATH nor installed here; run {build}")
    data = str(folder / "data")
    match kind:
        case "s3":
            return _seaweedfs(program, folder, ports, access_key, secret_key), {}
        case "minio":
            addresses = ["--address", f"127.0.0.1:{ports[0]}", "--console-address", f"127.0.0.1:{ports[1]}"]
            keys = {"MINIO_ROOT_USER": access_key, "MINIO_ROOT_PASSWORD": secret_key}
            return [str(program), "server", data, *addresses], {**keys, "MINIO_UPDATE": "off"}
        case "gcs":
            url = f"http://127.0.0.1:{ports[0]}"
            return [
                str(program), "-scheme=http", "-host=127.0.0.1", f"-port={ports[0]}", f"-external-url={url}",
                "-backend=filesystem", f"-filesystem-root={data}", "-log-level=warn",
            ], {}  # fmt: skip
    return [
        str(shutil.which("node")), str(program.resolve()), "--blobHost=127.0.0.1", f"--blobPort={ports[0]}",
        f"--location={data}", "--silent", "--disableTelemetry", "--skipApiVersionCheck",
    ], {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{secret_key}"}  # fmt: skip


def environment(kind: Kind, endpoint: str, access_key: str, secret_key: str) -> dict[str, str]:
    """The environment variables that point the driver of this kind of store to `endpoint`."""
    match kind:
        case "gcs":
            variables = {"STORAGE_EMULATOR_HOST": endpoint}
        case "azure":
            account = f"AccountName={ACCOUNT};AccountKey={secret_key}"
            blobs = f"DefaultEndpointsProtocol=http;BlobEndpoint={endpoint}/{ACCOUNT}"
            variables = {"AZURE_STORAGE_CONNECTION_STRING": f"{blobs};{account}"}
        case _:
            variables = {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ACCESS_KEY_ID": access_key,
                "AWS_SECRET_ACCESS_KEY": secret_key,
                "AWS_REGION": REGION,
                "AWS_DEFAULT_REGION": REGION,  # the variable that botocore reads
                "AWS_EC2_METADATA_DISABLED": "true",
            }
    return {**variables, "no_proxy": "127.0.0.1"}


def make_bucket(kind: Kind, variables: Mapping[str, str], name: str) -> None:
    """Make a bucket or container unless it exists, and check that it can be written to.

    Raises the errors of urllib (an OSError), Azure's library or botocore.
    """
    match kind:
        case "gcs":
            url = f"{variables['STORAGE_EMULATOR_HOST']}/storage/v1/b"
            request = urllib.request.Request(url, json.dumps({"name": name}).encode())
            try:
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10).close()
            except HTTPError as error:
                if error.code != 409:
                    raise
        case "azure":
            from azure.core.exceptions import ResourceExistsError
            from azure.storage.blob import BlobServiceClient

            text = variables["AZURE_STORAGE_CONNECTION_STRING"]
            with BlobServiceClient.from_connection_string(text, retry_total=0) as client:
                try:
                    client.create_container(name, timeout=10)
                except ResourceExistsError:
                    return
        case _:
            client = _s3_client(variables)
            if name not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket=name)
            # SeaweedFS lists buckets seconds before it can write to its volumes
            client.put_object(Bucket=name, Key=".ready", Body=b"ready")
            client.delete_object(Bucket=name, Key=".ready")


def _s3_client(variables: Mapping[str, str]) -> Any:
    settings = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10, proxies={})
    return Session().create_client(
        "s3", REGION, endpoint_url=variables["AWS_ENDPOINT_URL"], config=settings,
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip


def _seaweedfs(
    program: Path, folder: Path, ports: Sequence[int], access_key: str, secret_key: str
) -> list[str]:
    """The command line of SeaweedFS: its S3 gateway with the master, volume and filer servers it needs."""
    identity = {"name": BUCKET, "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"]}  # fmt: skip
    config = folder / "s3.json"
    config.unlink(missing_ok=True)
    config.touch(mode=0o600)
    config.write_text(json.dumps({"identities": [identity]}))
    return [
        str(program), "-logtostderr=true", "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1", "-master.telemetry=false", "-master.peers=none",
        "-master.volumeSizeLimitMB=128", "-volume.max=200", "-s3", f"-s3.config={config}",
        "-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        *(f"-{name}={port}" for name, port in zip(SEAWEEDFS_PORTS, ports, strict=True)),
    ]  # fmt: skip
