"""Read and write videos: one interface for files and folders of images."""
