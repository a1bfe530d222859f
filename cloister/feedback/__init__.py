"""What people say of a model's answers: kept at the site, reviewed there, exported as records."""
