"""Load for `kerve bench`: how it is made, when it is stable, what is told of it."""
