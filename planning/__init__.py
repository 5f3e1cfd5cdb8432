"""What has to be done: releases, pipelines, partitions, groups, completeness; pure functions of values, no Dagster, no services."""
