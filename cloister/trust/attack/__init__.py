"""What breaks a finished model: public test texts, disturbed, and the score on them."""
