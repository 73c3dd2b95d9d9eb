"""A product becomes a picture: background, props, product and overlays."""
