"""A finished prediction in other formats: DICOM structured reports, to a store or a DICOMweb server."""
