-- The last evaluated run by slice: the encoder and the best baseline of the same slice and metric.
-- Change: wanted_slice to category, has_brand, has_attributes, agreement_decile or a column named in evaluate.slices. For search queries
-- set wanted_task to query_item, and wanted_slice to category, popularity, length, has_picture or source.
DECLARE OR REPLACE VARIABLE wanted_slice STRING DEFAULT 'popularity';
DECLARE OR REPLACE VARIABLE wanted_task STRING DEFAULT 'item_item';
WITH last_night AS (
  SELECT *, startswith(model_version, 'frozen_') OR model_version = 'bm25' AS frozen
  FROM retrieval_metrics
  WHERE run_id = (SELECT max_by(run_id, measured_at) FROM retrieval_metrics)
    AND coalesce(task, 'item_item') = wanted_task
    AND (slice = 'all' OR startswith(slice, wanted_slice || '='))
    AND (metric, k) IN (('hit_rate', 1), ('hit_rate', 10), ('ndcg', 10), ('mrr', 0))
)
SELECT
  slice,
  if(k > 0, metric || '@' || k, metric) AS metric,
  max(n_queries) AS n_queries,
  round(max(value) FILTER (WHERE NOT frozen), 4) AS encoder,
  round(max(ci_low) FILTER (WHERE NOT frozen), 4) AS ci_low,
  round(max(ci_high) FILTER (WHERE NOT frozen), 4) AS ci_high,
  max_by(model_version, value) FILTER (WHERE frozen) AS best_frozen,
  round(max(value) FILTER (WHERE frozen), 4) AS frozen_value,
  round(max(value) FILTER (WHERE NOT frozen) - max(value) FILTER (WHERE frozen), 4) AS gain
FROM last_night
GROUP BY slice, metric, k
ORDER BY slice <> 'all', slice, metric, k
LIMIT 200;
