"""What commands print: plain functions that return lines of text."""
