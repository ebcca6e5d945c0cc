"""Model sources that are reached over HTTP. Each implements `modelhaul.ports.model_sources.ModelSource`."""
