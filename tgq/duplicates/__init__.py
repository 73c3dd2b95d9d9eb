"""Near-duplicate pictures: the perceptual hash of each picture, and the clusters that the hashes form."""
