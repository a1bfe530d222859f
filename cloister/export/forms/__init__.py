"""A finished adapter in forms that systems without Cloister load: one file a format, one table."""
