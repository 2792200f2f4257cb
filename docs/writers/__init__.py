"""What writes the pages of the reference from the code that they describe; `make reference` runs it."""
