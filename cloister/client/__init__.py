"""The site's side of a study."""
