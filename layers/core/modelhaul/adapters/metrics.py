"""Metrics in CloudWatch Embedded Metric Format, as lines of the function's log.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.metrics.provider.cloudwatch_emf.cloudwatch import AmazonCloudWatchEMFProvider

from modelhaul.ports.metrics import CATALOG


class PowertoolsMetrics:
    """Implements `Metrics`. POWERTOOLS_METRICS_NAMESPACE sets the namespace, POWERTOOLS_SERVICE_NAME the dimension
    `service`.
    """

    def count(self, name: str, value: float = 1, **dimensions: str) -> None:
        metric = AmazonCloudWatchEMFProvider()
        metric.add_metric(name, MetricUnit(CATALOG[name].unit), value)
        for key, text in dimensions.items():
            metric.add_dimension(key, str(text))
        # The total over all dimensions is a separate metric, because CloudWatch does not aggregate over dimensions, and
        # alarms cannot use search expressions.
        if dimensions and metric.service:
            metric.add_dimensions(service=metric.service)
        metric.flush_metrics()
