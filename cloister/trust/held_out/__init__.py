"""Scores an adapter on records that its site held out of training, at the site."""
