"""What exists, as Dagster sees it: definitions, assets, partitions, checks and automation."""
