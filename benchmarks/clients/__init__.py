"""S3 clients for Python, each made to do what a checkpoint needs as well as it can."""
