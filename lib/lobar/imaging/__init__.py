"""DICOM bytes to network input, or a rejection that says why."""
