"""Real servers on loopback for tests, the demo and benchmarks; a module a service; no Dagster."""
