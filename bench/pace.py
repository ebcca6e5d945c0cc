"""Assumptions of the simulation of an import."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """Assumed durations, in seconds. CPU times are from `docs/benchmarks.md`, for the 0.29 vCPU of 512 MB of memory.
    The rates of hashes are for the same vCPU, without and with the CPU time of a download at `rate`. Response times of
    AWS and the source are conservative estimates.
    """

    rate: float = 75e6  # bytes per second of one function's network
    hash_rate: float = 0.45e9  # bytes per second of a function that only hashes
    busy_hash_rate: float = 0.3e9  # bytes per second that a function can hash while its network is busy
    limit: float = 900.0  # timeout of a function
    cold_start: float = 2.0
    delivery: float = 0.1  # of a message from a queue to a function
    first_functions: int = 5  # that Lambda starts for a queue at once
    more_functions: float = 5.0  # that Lambda adds per second
    source_response: float = 0.2  # a file's redirect and its first byte
    put: float = 0.05
    copy: float = 0.06
    copy_rate: float = 75e6  # bytes per second of one copy request inside S3
    fetch_cpu: float = 0.007
    put_cpu: float = 0.007
    copy_cpu: float = 0.004
    check_cpu: float = 0.002  # to check a small file
    record_cpu: float = 0.0001  # to read the record of a file
    publish_cpu: float = 0.0003  # of the publisher, for each file
    other_s3: float = 0.03
    write_rate: float = 3500.0  # PutObject and CopyObject requests per second of a bucket
    database: float = 0.01
    partition_rate: float = 1000.0  # write units per second of a partition key
    table_rate: float = 4000.0  # write units per second of a new table
