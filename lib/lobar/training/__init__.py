"""From an index to a trained, exported model, as a recipe describes."""
