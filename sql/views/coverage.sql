-- One row is a category: how many of today's active items are published with their present content.
-- A share that falls while nights are refused is the price of the old generation. For data engineers and the people on call.
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
