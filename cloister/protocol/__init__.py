"""What the coordinator and a site say to each other, and how a question is signed."""
