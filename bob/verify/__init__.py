"""Questions put to a data set as it lies on disk, before anything is computed from it."""
