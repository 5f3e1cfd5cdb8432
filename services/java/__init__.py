"""Kafka's Java programs: where their jars come from, and how one is run."""
