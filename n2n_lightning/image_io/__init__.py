"""Image files of any depth: read by photo, npy and tiff_reading; written by conversion, encoding, tiff_rewriting."""
