"""The steps of a run. Each takes values and files of earlier ones; `translate` orders them."""
