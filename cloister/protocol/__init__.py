"""Messages between the coordinator and a site: their fields, and the signatures of questions."""
