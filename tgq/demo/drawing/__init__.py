"""The drawing surface: outlines, surfaces and the canvas that paints them."""
