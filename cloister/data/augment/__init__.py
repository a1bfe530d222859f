"""Makes copies of records that stay in their record's privacy unit: `cloister data augment`."""
