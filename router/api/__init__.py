"""The wire: one module for each surface. What is asked often is raw ASGI; the rest are FastAPI routes."""
