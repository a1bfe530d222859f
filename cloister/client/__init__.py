"""The site's side of a study: it accepts, is admitted, answers rounds and checks each message."""
