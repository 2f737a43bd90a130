"""What the service is measured against, under the same Gunicorn settings: how fast it could be with less in it."""
