"""Which backend a flow goes to, how many flows there may be, and what is counted of them."""
