"""The ground floor: what a part is, the records that walk through the house, errors, seeds and files."""
