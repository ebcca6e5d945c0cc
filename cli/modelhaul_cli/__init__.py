"""The `modelhaul` command-line client. It uses only the HTTP API and presigned URLs: no AWS SDK, none of the layers."""
