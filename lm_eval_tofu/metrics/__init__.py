"""Pure functions on numbers and strings. Of the rest of the package only its errors are imported here."""
