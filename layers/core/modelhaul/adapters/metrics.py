"""Metrics as CloudWatch Embedded Metric Format lines in the function's log.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.metrics.provider.cloudwatch_emf.cloudwatch import AmazonCloudWatchEMFProvider

from modelhaul.ports.metrics import CATALOG


class PowertoolsMetrics:
    """Implements `Metrics`. The namespace comes from POWERTOOLS_METRICS_NAMESPACE, the dimension
    `service` from POWERTOOLS_SERVICE_NAME.
    """

    def count(self, name: str, value: float = 1, **dimensions: str) -> None:
        metric = AmazonCloudWatchEMFProvider()
        metric.add_metric(name, MetricUnit(CATALOG[name].unit), value)
        for key, text in dimensions.items():
            metric.add_dimension(key, str(text))
        # CloudWatch adds nothing up over dimensions, and alarms cannot search: so the total is a metric of its own.
        if dimensions and metric.service:
            metric.add_dimensions(service=metric.service)
        metric.flush_metrics()
