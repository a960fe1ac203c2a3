"""Label table, images and groups to an index with its split; drift between data sets."""
