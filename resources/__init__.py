"""What we talk to: the site profile, the Butler, databases, Kafka, Dagster's bulk events; connections and nothing more."""
