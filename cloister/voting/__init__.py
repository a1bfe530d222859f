"""The coordinator's part of a study of votes: candidates, their variations, and the records."""
