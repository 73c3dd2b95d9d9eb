-- How much similarities changed between the two models that embedded last. Vectors of two models are in different spaces and
-- cannot be compared, but the cosines of the same pairs of items can. agreement is the correlation of these cosines over pairs
-- of items: 1 if both models agree, 0 if they are unrelated, NULL if all pairs of a kind have the same cosine.
-- Change: LIMIT of the sample (the pairs grow with its square).
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
