-- Items whose picture does not match their title, the worst first: swapped pictures, wrong titles, banners instead of products.
-- agreement is the cosine of picture and title. z is its distance from the category's mean, in standard deviations.
-- Change: least_items, the size of the smallest category to consider; LIMIT.
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
