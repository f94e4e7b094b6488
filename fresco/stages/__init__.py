"""The stages of a run, each from values and files of earlier ones; `translate` orders them."""
