"""The formats in which the tests of readers write the same rows."""

FORMATS = (".jsonl", ".json", ".csv", ".parquet")
