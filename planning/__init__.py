"""What has to be done: releases, pipelines, partitions, groups; pure functions of values, no Dagster, no services."""
