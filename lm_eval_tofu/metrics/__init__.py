"""Pure functions on numbers and strings: the benchmark's metrics. Nothing here imports from the rest of the package."""
