"""The shapes of everything on the wire. The OpenAPI document is written from them."""
