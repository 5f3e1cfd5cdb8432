"""A survey to run on: sky, detectors, calibrations and their delivery with Hermes messages; no Dagster."""
