"""What runs on workers: the instrument, the raw formatter, the skymap, the small DRP's PipelineTasks and validation's; no Dagster."""
