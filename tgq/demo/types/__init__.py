"""The product types, a module per department; importing this package registers them all."""

from tgq.demo.types import accessories, apparel, bags, electronics, footwear, furniture, garden, home, kitchen, sports, toys  # noqa: F401
