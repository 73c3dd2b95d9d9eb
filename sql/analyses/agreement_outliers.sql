-- Items whose picture contradicts their title, the worst first: swapped pictures, wrong titles, banners in place of products.
-- agreement is the cosine of picture and title; z says how far below its category's mean it lies, in standard deviations.
-- Change: least_items, the smallest category that has a meaningful mean; LIMIT.
DECLARE OR REPLACE VARIABLE least_items INT DEFAULT 10;
WITH judged AS (
  SELECT
    item_id, title, brand, category, agreement,
    count(*) OVER (PARTITION BY category) AS items,
    try_divide(agreement - avg(agreement) OVER (PARTITION BY category), stddev(agreement) OVER (PARTITION BY category)) AS z
  FROM current_embeddings
  WHERE NOT isnan(agreement)
)
SELECT item_id, title, brand, category, round(agreement, 4) AS agreement, round(z, 2) AS z
FROM judged
WHERE items >= least_items AND z < 0
ORDER BY judged.z, item_id
LIMIT 50;
