"""Model sources over HTTP. Each implements `modelhaul.ports.model_sources.ModelSource`."""
