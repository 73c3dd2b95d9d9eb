-- One row is a published item whose picture another published item has too, or a near-duplicate of it: encoded again, resized, slightly cropped.
-- Items of equal canonical_image_hash form a cluster. `distance` counts the bits (of 64) in which the perceptual hash differs from that of the canonical
-- picture, and is 0 for the same file. Near-duplicates are known if duplicates.enabled is set.
-- For analysts who look for products that are listed twice, and for placeholders.
CREATE OR REPLACE VIEW duplicate_pictures AS
WITH pictured AS (
  SELECT
    i.item_id,
    i.title,
    i.category,
    i.image_hash,
    coalesce(c.canonical_hash, i.image_hash) AS canonical_image_hash,
    coalesce(c.distance, 0) AS distance,
    count(*) OVER (PARTITION BY coalesce(c.canonical_hash, i.image_hash)) AS items
  FROM published_items i
  LEFT JOIN picture_clusters c ON c.image_hash = i.image_hash
  WHERE i.image_hash IS NOT NULL
)
SELECT item_id, title, category, image_hash, canonical_image_hash, distance, items
FROM pictured
WHERE items > 1;
