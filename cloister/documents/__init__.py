"""An institution's documents: cut into passages, indexed and searched where they lie."""
