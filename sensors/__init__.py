"""What starts work: arrivals, readiness, failures; thin."""
