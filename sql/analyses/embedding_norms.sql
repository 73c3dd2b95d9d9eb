-- Width and norms of the vectors, a row per model.
-- mean_length is the length of the mean vector: near 0 if the vectors spread in all directions, near 1 if all are alike.
-- Change: nothing; off_unit and not_finite should be 0.
SELECT
  model_version,
  size(embedding) AS width,
  count(*) AS items,
  round(min(vector_norm(embedding)), 5) AS shortest,
  round(max(vector_norm(embedding)), 5) AS longest,
  count_if(abs(vector_norm(embedding) - 1) > 1e-3) AS off_unit,
  count_if(exists(embedding, x -> isnan(x) OR abs(x) = float('inf'))) AS not_finite,
  round(vector_norm(vector_avg(embedding)), 4) AS mean_length,
  max(embedded_at) AS last_embedded_at
FROM item_embeddings
GROUP BY model_version, size(embedding)
ORDER BY last_embedded_at DESC
LIMIT 20;
