"""What runs on workers: instrument, raw formatter, skymap, PipelineTasks of the DRP and of validation; no Dagster."""
