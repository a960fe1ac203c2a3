"""lobar finds pneumonia on chest X-rays in batches. Not for clinical use."""
