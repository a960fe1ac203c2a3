"""A chest-like data set in RSNA's format, so that anyone can run everything."""
