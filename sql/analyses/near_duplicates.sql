-- Pairs of items of one category with almost equal vectors: the same product listed twice, or products that look the same.
-- Change: least_cosine; wanted_category to one category (NULL: all); LIMIT.
-- The cost grows with the square of a category's size: choose one category in a catalog of millions.
DECLARE OR REPLACE VARIABLE least_cosine FLOAT DEFAULT 0.98F;
DECLARE OR REPLACE VARIABLE wanted_category STRING DEFAULT NULL;
SELECT
  a.category,
  a.item_id,
  b.item_id AS other_id,
  a.title,
  b.title AS other_title,
  round(vector_inner_product(a.embedding, b.embedding), 4) AS cosine
FROM current_embeddings a
JOIN current_embeddings b ON a.category = b.category AND a.item_id < b.item_id
WHERE (wanted_category IS NULL OR a.category = wanted_category)
  AND vector_inner_product(a.embedding, b.embedding) >= least_cosine
ORDER BY vector_inner_product(a.embedding, b.embedding) DESC, a.item_id, b.item_id
LIMIT 100;
