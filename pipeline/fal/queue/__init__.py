"""fal's queue: its protocol, one method an operation, and what may be concluded from a reply."""
