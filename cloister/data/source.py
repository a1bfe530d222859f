"""Where whoever reads data named them, so that a message says what to correct, and where."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataOrigin:
    """Who has data read, and the words for where it names them.

    Attributes:
        file: What names the data's file; `{split}` in it is the split.
        column: What to do about a column of another name; `{key}` in it is the column's role.
        person: The same for the column of persons.
    """

    file: str
    column: str
    person: str

    def source(self, split: str) -> str:
        """The name of what names the file."""
        return self.file.format(split=split)

    def remedy(self, key: str) -> str:
        """What to do where a column is not there.

        Args:
            key: The column's role: `text`, `label`, `person`, ….
        """
        return (self.person if key == "person" else self.column).format(key=key)


RECIPE = DataOrigin(
    "data.{split}", "set data.{key} to the column's name", "set data.person to the column's name"
)
SITE = DataOrigin(
    "site.data in site.toml",
    "set site.{key} in site.toml to the column's name",
    "set privacy.person in site.toml to the column's name",
)
# The columns come with the adapter.
RELEASED = DataOrigin(
    "--data",
    "call the file's column so, as the adapter's training did",
    "call the file's column so, as the adapter's training did",
)
