"""Attributes that an item lacks, generated from its picture and texts: by small heads over the encoder's features, or by a language model. Needs no Spark."""
