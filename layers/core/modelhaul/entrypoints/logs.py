"""The structured logger. The domain logs through the standard library; Powertools formats its records."""

import logging
from functools import cache

from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers


@cache
def create_logger() -> Logger:
    """Create the logger, which writes JSON lines with service and request ID.

    POWERTOOLS_LOG_LEVEL sets the level, POWERTOOLS_SERVICE_NAME the service.
    """
    logger = Logger(serialize_stacktrace=False)  # the text of the stack trace is sufficient
    domain = {"modelhaul", "modelhaul_sources", "modelhaul_scanner"}
    for name in domain:
        logging.getLogger(name).propagate = False
    copy_config_to_registered_loggers(logger, include=domain, ignore_log_level=False)
    return logger
