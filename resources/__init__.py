"""What we talk to: site profile, Butler, databases, Kafka, Dagster's bulk events; connections and nothing more."""
