"""Says where the user named a data source and its columns, so that errors say what to correct."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class DataOrigin:
    """The words for the place where a user names a data source and its columns.

    Attributes:
        file: The field or option that names the file; `{split}` in it is the split.
        column: What to do if a column has another name; `{key}` in it is the column's role.
        person: What to do if the column of persons has another name.
    """

    file: str
    column: str
    person: str

    def source(self, split: str) -> str:
        """Returns the field or option that names the file."""
        return self.file.format(split=split)

    def remedy(self, key: str) -> str:
        """Returns what to do if a column is missing.

        Args:
            key: The column's role: `text`, `label`, `person`, ….
        """
        return (self.person if key == "person" else self.column).format(key=key)


RECIPE = DataOrigin(
    "data.{split}", "set data.{key} to the column's name", "set data.person to the column's name"
)
# Both are read as a split of another name, so that name would send the reader to another field.
OLD_TEST = replace(RECIPE, file="data.old_test")
PUBLIC = replace(RECIPE, file="data.public")
SITE = DataOrigin(
    "site.data in site.toml",
    "set site.{key} in site.toml to the column's name",
    "set privacy.person in site.toml to the column's name",
)
# The adapter's folder fixes the columns' names.
RELEASED = DataOrigin(
    "--data",
    "give the file's column this name, as in the adapter's training",
    "give the file's column this name, as in the adapter's training",
)


def released_as(option: str) -> DataOrigin:
    """Returns the words for a file that an option other than `--data` names."""
    return replace(RELEASED, file=option)
