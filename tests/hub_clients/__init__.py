"""Programs that run real Hub clients, and the stand-in for S3 that they are sent to."""
