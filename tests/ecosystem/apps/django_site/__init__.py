"""A Django site with what most sites have, but for a database."""
