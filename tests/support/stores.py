"""Points this process to a store's server."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from lobar.storage import filesystem


@contextmanager
def use_server(environment: Mapping[str, str]) -> Iterator[None]:
    """Within the block, URLs of its kind refer to the server that these environment variables describe."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        filesystem._filesystem.cache_clear()
        yield
    filesystem._filesystem.cache_clear()
