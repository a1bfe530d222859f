"""Files of who had what and when, in the forms that public sets have, as one record a person."""
