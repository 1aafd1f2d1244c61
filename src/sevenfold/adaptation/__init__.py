"""What a trained representation is made to do: read out, tuned, prompted, taken on to other data."""
