"""Whether it is good: scorecard, figures and report, from the metrics in the Butler; no Dagster."""
