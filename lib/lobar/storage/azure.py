"""adlfs for Azure Blob Storage, without its library's retries, with plain names and complete listings."""

from typing import Any

from adlfs import AzureBlobFileSystem
from azure.storage.blob import BlobProperties
from azure.storage.blob.aio import BlobServiceClient

from lobar.core.errors import InputError


class AzureFileSystem(AzureBlobFileSystem):
    """The driver for abfs://CONTAINER/NAME; the account comes from the environment."""

    service_client: BlobServiceClient

    def __init__(self, seconds: float, **options: Any) -> None:
        self.seconds = seconds
        super().__init__(max_concurrency=1, **options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        """The container and the name. adlfs would read '?' and '#' in a name as parts of a web address."""
        return path.partition("://")[2].strip("/") if "://" in path else path

    def split_path(self, path: str, **options: Any) -> tuple[str, str, None]:
        container, _, name = self._strip_protocol(path).partition("/")
        if "@" in container:
            raise InputError(
                f"abfs://{container}: give abfs://CONTAINER/PATH and set AZURE_STORAGE_ACCOUNT_NAME"
            )
        return container, name, None

    def do_connect(self) -> None:
        """Replace the client that adlfs makes by one that does not retry."""
        super().do_connect()
        made = self.service_client
        self.service_client = BlobServiceClient(
            made.url, made.credential, retry_total=0, connection_timeout=10, read_timeout=self.seconds,
            max_single_get_size=1 << 30, logging_enable=False,
        )  # fmt: skip

    async def _find(self, path: str, **options: Any) -> dict[str, dict[str, Any]]:
        """All blobs under a prefix. adlfs would return nothing for a missing container."""
        container, prefix, _ = self.split_path(path)
        async with self.service_client.get_container_client(container) as client:
            blobs = client.list_blobs(name_starts_with=f"{prefix}/" if prefix else None, include=["metadata"])
            return {
                f"{container}/{blob.name}": _describe(blob)
                async for blob in blobs
                if not (blob.metadata or {}).get("hdi_isfolder")  # of accounts with a hierarchical namespace
            }

    async def _details(self, contents: list[Any], **options: Any) -> list[dict[str, Any]]:
        details = await super()._details(contents, **options)
        return [
            detail | (_describe(item) if isinstance(item, BlobProperties) else {})
            for item, detail in zip(contents, details, strict=True)
        ]


def _describe(blob: BlobProperties) -> dict[str, Any]:
    """Size and etag of a blob; the etag is the MD5 of its content if the store has one."""
    md5 = blob.content_settings.content_md5
    return {"size": blob.size, "etag": bytes(md5).hex() if md5 else blob.etag}
