-- The mean vector of each category: how compact the category is, and which other category is nearest to it.
-- cohesion is the length of the mean of unit vectors: 1 if all vectors are equal, near 0 if they point in all directions.
-- A high similarity to another category suggests that the encoder cannot separate the two.
-- Change: LIMIT. The cost grows with the items, and with the square of the number of categories.
WITH centroids AS (
  SELECT category, count(*) AS items, vector_avg(embedding) AS centre
  FROM current_embeddings
  GROUP BY category
),
compared AS (
  SELECT
    a.category,
    a.items,
    vector_norm(a.centre) AS cohesion,
    b.category AS other,
    vector_cosine_similarity(a.centre, b.centre) AS similarity
  FROM centroids a
  LEFT JOIN centroids b ON a.category <> b.category
)
SELECT
  category,
  items,
  round(cohesion, 4) AS cohesion,
  max_by(other, similarity) AS nearest_category,
  round(max(similarity), 4) AS similarity
FROM compared
GROUP BY category, items, cohesion
ORDER BY items DESC, category
LIMIT 100;
