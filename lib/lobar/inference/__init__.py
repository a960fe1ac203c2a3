"""From a model and images to boxes, rows and one submission."""
