"""The site's side of a study: acceptance, admission, rounds and what may leave."""
