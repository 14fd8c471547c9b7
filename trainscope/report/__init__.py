"""Tables, figures and files that show records."""
