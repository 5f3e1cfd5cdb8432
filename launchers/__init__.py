"""How heavy work runs: partitions of a step become a graph, a BPS workflow, an outcome; also the run launcher."""
