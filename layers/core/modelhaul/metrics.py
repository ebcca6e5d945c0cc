"""The metrics that Modelhaul emits, namespace `Modelhaul`: name to CloudWatch unit.

Dimensions: `source` (HUGGINGFACE, …) on all that concern an import, `reason` (an error's type) on ImportsFailed,
`step` (a message's kind) on Retries and RateLimitWaits.
"""

UNITS = {
    "ImportsAccepted": "Count",
    "ImportsSucceeded": "Count",
    "ImportsFailed": "Count",
    "ImportsCancelled": "Count",
    "ImportSeconds": "Seconds",
    "BytesTransferred": "Bytes",
    "BytesReused": "Bytes",
    "ModelsDeleted": "Count",
    "Retries": "Count",
    "RateLimitWaits": "Count",
    "SweepRecoveries": "Count",
    "UnreadableMessages": "Count",
}
