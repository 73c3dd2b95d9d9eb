"""The product types, a module per department; importing this package registers them all."""

from tgq.demo.types import apparel, bags, footwear, furniture, kitchen  # noqa: F401
