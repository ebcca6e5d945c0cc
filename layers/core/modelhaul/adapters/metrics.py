"""Metrics as CloudWatch Embedded Metric Format lines in the function's log.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from aws_lambda_powertools.metrics import MetricUnit, single_metric

from modelhaul.metrics import UNITS


class PowertoolsMeter:
    """Implements `modelhaul.ports.Meter`. The namespace comes from POWERTOOLS_METRICS_NAMESPACE."""

    def count(self, name: str, value: float = 1, **dimensions: str) -> None:
        with single_metric(name=name, unit=MetricUnit(UNITS[name]), value=value) as metric:
            for key, text in dimensions.items():
                metric.add_dimension(name=key, value=str(text))
