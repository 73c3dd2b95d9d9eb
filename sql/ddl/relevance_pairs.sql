-- One row is a known-relevant pair. Key: query_item_id, positive_item_id, source.
-- weight 0 means "the same thing, not judged": neither a hit nor a miss (other views of the same variant).
-- group_id is the query's group, or the query itself where it has none. No item of a test unit is in a train pair.
CREATE TABLE IF NOT EXISTS relevance_pairs (
  query_item_id    STRING NOT NULL,
  positive_item_id STRING NOT NULL,
  source           STRING NOT NULL COMMENT 'group, table or the link''s kind',
  weight           FLOAT NOT NULL,
  split            STRING NOT NULL COMMENT 'train or test, by a stable hash of group_id',
  group_id         STRING NOT NULL COMMENT 'split and bootstrap unit',
  event_time       TIMESTAMP
)
USING DELTA
TBLPROPERTIES ('delta.enableDeletionVectors' = 'true');
