"""What Gunicorn serves."""

from wine_api.app import create_app

app = create_app()
