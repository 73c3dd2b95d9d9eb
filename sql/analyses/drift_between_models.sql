-- How much the geometry moved between the two models that embedded last. Vectors of two models lie in different spaces and
-- cannot be compared; the cosines of the same pairs of items can. agreement is their correlation: 1 when both models see the
-- same likenesses, 0 when they have nothing in common, NULL where
-- all pairs of a kind are equally alike.
-- Change: LIMIT of the sample (pairs grow with its square).
WITH models AS (
  SELECT model_version, row_number() OVER (ORDER BY max(embedded_at) DESC, model_version) AS age
  FROM item_embeddings
  GROUP BY model_version
),
after AS (SELECT e.* FROM item_embeddings e JOIN models m ON m.model_version = e.model_version WHERE m.age = 1),
before AS (SELECT e.* FROM item_embeddings e JOIN models m ON m.model_version = e.model_version WHERE m.age = 2),
drawn AS (
  SELECT a.item_id, a.category, b.embedding AS before, a.embedding AS after
  FROM after a
  JOIN before b ON a.item_id = b.item_id AND a.content_hash = b.content_hash
  ORDER BY xxhash64(a.item_id), a.item_id
  LIMIT 500
),
pairs AS (
  SELECT
    if(x.category <=> y.category, 'same category', 'two categories') AS kind,
    vector_inner_product(x.before, y.before) AS before,
    vector_inner_product(x.after, y.after) AS after
  FROM drawn x
  JOIN drawn y ON x.item_id < y.item_id
)
SELECT
  coalesce(kind, 'all') AS pairs_of,
  count(*) AS pairs,
  round(avg(before), 4) AS mean_cosine_before,
  round(avg(after), 4) AS mean_cosine_after,
  round(try_divide(covar_pop(before, after), stddev_pop(before) * stddev_pop(after)), 4) AS agreement
FROM pairs
GROUP BY ROLLUP (kind)
ORDER BY pairs_of;
