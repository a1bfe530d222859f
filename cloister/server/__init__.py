"""The coordinator's side of a study: questions, rounds, aggregation and the study's end."""
