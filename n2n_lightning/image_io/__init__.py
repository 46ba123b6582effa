"""Image files of any depth: read in windows, written back as they were; TIFF; value range."""
