"""The widget of the CloudWatch dashboard: what is shown, and its HTML."""
