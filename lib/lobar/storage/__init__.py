"""Objects by URL on any fsspec filesystem: the retry policy, the layout of every folder, typed records."""
