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

    def count(self, name: str, value: float = 1) -> None:
        metric = AmazonCloudWatchEMFProvider()
        metric.add_metric(name, MetricUnit(CATALOG[name]), value)
        metric.flush_metrics()
