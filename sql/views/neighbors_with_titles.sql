-- One row is a published neighbour of an item, with the titles and categories of both. Rank 1 is the nearest.
-- For merchandisers who review the neighbours, and for services that show them.
CREATE OR REPLACE VIEW neighbors_with_titles AS
SELECT
  n.item_id,
  i.title,
  i.category,
  n.rank,
  n.score,
  n.neighbor_id,
  m.title AS neighbor_title,
  m.brand AS neighbor_brand,
  m.category AS neighbor_category,
  n.model_version
FROM published_neighbors n
LEFT JOIN published_items i ON i.item_id = n.item_id
LEFT JOIN published_items m ON m.item_id = n.neighbor_id;
