-- The 20 nearest published items of an item, by exact search.
-- Change: wanted_item to an item_id (NULL takes the first by id); LIMIT.
DECLARE OR REPLACE VARIABLE wanted_item STRING DEFAULT NULL;
WITH query AS (
  SELECT item_id, embedding
  FROM current_embeddings
  WHERE item_id = coalesce(wanted_item, (SELECT min(item_id) FROM current_embeddings))
)
SELECT
  q.item_id AS query_id,
  c.item_id,
  c.title,
  c.brand,
  c.category,
  round(vector_inner_product(c.embedding, q.embedding), 4) AS cosine
FROM current_embeddings c
JOIN query q ON c.item_id <> q.item_id
ORDER BY vector_inner_product(c.embedding, q.embedding) DESC, c.item_id
LIMIT 20;
