-- One row is a published neighbour of an item. Key: item_id, model_version, rank.
CREATE TABLE IF NOT EXISTS item_neighbors (
  item_id       STRING NOT NULL,
  model_version STRING NOT NULL,
  rank          INT NOT NULL COMMENT '1 is the nearest',
  neighbor_id   STRING NOT NULL,
  score         FLOAT NOT NULL COMMENT 'cosine'
)
USING DELTA;
