"""File formats in which the readers' tests write the same rows."""

FORMATS = (".jsonl", ".json", ".csv", ".parquet")
