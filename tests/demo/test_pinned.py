"""The same pictures for the same seed: pixels before JPEG encoding and rows, as they were when they were pinned.

The pins hold for the versions in constraints.txt; another Pillow or FreeType may round an edge or a letter differently.
A change that is meant to alter pictures or texts raises `tgq.demo.catalog.VERSION` and pins anew (the failing assertion shows what is drawn now).
"""

import hashlib
import json

from tgq.demo.catalog import item_of, plan_of
from tgq.demo.drawing.canvas import Brand, Canvas, Look
from tgq.demo.drawing.draws import Shape, unit_of
from tgq.demo.types import products

CATALOG = "ef8062d8fe794fab0ff64ba0507c48d9fb4e21a6aeec7ff994ae2298d26dc858"
TYPES = {
    "Caps": "497f0ddf", "Watches": "0e9d569f", "Sunglasses": "870df5d1", "Umbrellas": "bb7f5066", "Ties": "1eec02a3", "T-shirts": "65830994",
    "Shirts": "f090d0da", "Hoodies": "f90b2316", "Dresses": "1973c754", "Trousers": "03e5e036", "Shorts": "84ff1b92", "Skirts": "396744c3",
    "Socks": "f20fc4d8", "Jackets": "020f55df", "Backpacks": "567cb846", "Handbags": "9c070a65", "Tote bags": "7ab3b2ff", "Suitcases": "0412bb79",
    "Headphones": "54abf15e", "Phones": "8ea82e05", "Laptops": "60382166", "Cameras": "cbe14362", "Speakers": "01fc753b", "Game controllers": "1b2dda0c",
    "Sneakers": "e6b0bef8", "Boots": "ebb11927", "Pumps": "655bfb32", "Flip-flops": "3ed38244", "Loafers": "6d9c6c92", "Chairs": "23653533",
    "Tables": "0e7f602e", "Sofas": "7288a236", "Lamps": "7710b5f7", "Stools": "5eb95528", "Bookcases": "26361d38", "Dressers": "c7beb3c8",
    "Watering cans": "8cb8cd7f", "Flower pots": "c6e392ee", "Spades": "063c6fdf", "Birdhouses": "4c07ac2f", "Vases": "a09f3c84", "Clocks": "8f1d80fe",
    "Cushions": "5309493b", "Candles": "74365108", "Mugs": "d5e3066d", "Kettles": "775b20f8", "Teapots": "b0247817", "Pans": "f5c88ef7",
    "Water bottles": "f89890c8", "Wine glasses": "64fd2821", "Toasters": "4afbb02c", "Pots": "72d0c4d8", "Plates": "977d9be2", "Rackets": "0aa4fb23",
    "Dumbbells": "024dd58e", "Kettlebells": "fc92380f", "Skateboards": "ab3e5591", "Bicycles": "a8ab8f08", "Helmets": "01a3bae4", "Balls": "745f2e41",
    "Teddy bears": "fa69fe5f", "Toy cars": "d1034887", "Rubber ducks": "a9dc39a3", "Toy rockets": "2e121b0f", "Building blocks": "ddad20d9",
    "Guitars": "cf606928",
}  # fmt: skip


def test_a_catalog_of_sixty_items():
    digest = hashlib.sha256()
    for step in plan_of(60, seed=0):
        image, quality, row = item_of(0, 128, *step)
        digest.update(image.tobytes())
        digest.update(json.dumps([quality, row], sort_keys=True).encode())
    assert digest.hexdigest() == CATALOG


def test_every_product_type():
    drawn = {}
    for product in products():
        digest = hashlib.sha256()
        for k, pattern in enumerate(("solid", "striped", "dotted", "checked")):
            shape = Shape(unit_of("pinned", product.name, k))
            look = Look((40, 90, 180), (240, 200, 60), pattern, product.materials[0], Brand("Velmora", "star", (200, 40, 40)))
            canvas = Canvas(128, look, shape)
            product.draw(canvas, shape)
            digest.update(canvas.colour.tobytes() + canvas.alpha.tobytes() + json.dumps(shape.traits).encode())
        drawn[product.name] = digest.hexdigest()[:8]
    assert drawn == TYPES
