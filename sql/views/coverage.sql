-- One row is a category: its active items, and how many of them are published with their present content.
-- The share falls while runs are refused, because the old generation stays published. For data engineers.
CREATE OR REPLACE VIEW coverage AS
SELECT
  coalesce(nullif(trim(i.category), ''), '(none)') AS category,
  count(*) AS active_items,
  count(e.item_id) AS embedded_items,
  count(e.item_id) / count(*) AS share
FROM catalog_items i
LEFT JOIN published_embeddings e ON e.item_id = i.item_id AND e.content_hash = i.content_hash
WHERE i.is_active
GROUP BY 1;
