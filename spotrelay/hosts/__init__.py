"""Machines of one's own, reached by SSH: a lab's box or any rented host, as a provider beside EC2."""
