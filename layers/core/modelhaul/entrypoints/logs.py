"""One structured logger for all: the domain logs through the standard library, this gives it Powertools' form."""

import logging
from functools import cache

from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers


@cache
def create_logger() -> Logger:
    """JSON lines with service and request id. Level by POWERTOOLS_LOG_LEVEL, service by POWERTOOLS_SERVICE_NAME."""
    logger = Logger(serialize_stacktrace=False)  # the text of the trace is enough
    domain = {"modelhaul", "modelhaul_sources", "modelhaul_scanner"}
    for name in domain:
        logging.getLogger(name).propagate = False
    copy_config_to_registered_loggers(logger, include=domain, ignore_log_level=False)
    return logger
