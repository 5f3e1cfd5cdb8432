"""What runs on workers: instrument, raw formatter, skymap, the small DRP's PipelineTasks and validation's; no Dagster."""
