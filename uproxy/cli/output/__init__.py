"""What commands print, as lines of text made by plain functions."""
