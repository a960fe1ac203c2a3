"""From an index to a trained, exported model, as one recipe says."""
