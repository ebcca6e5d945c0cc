"""Which files are transferred together, and which content is indexed."""

from dataclasses import dataclass

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TransferPolicy:
    """Sizes are bytes.

    A file of up to `small_file` is transferred whole, in memory. A message has at most `group_files` small files (with
    the task's counter one DynamoDB transaction of 100 actions) of `group_bytes` together. Content of `min_indexed` or
    more is indexed by its SHA-256, too; smaller content only by the digest that its source publishes, since an entry
    costs as much to write as the file's record.
    """

    small_file: int = 8 * _MIB
    group_files: int = 90
    group_bytes: int = 64 * _MIB
    min_indexed: int = _MIB // 4
