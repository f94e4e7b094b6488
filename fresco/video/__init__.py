"""Reading and writing video: one interface over files and folders of images."""
